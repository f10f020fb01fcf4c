"""LangChain's `langchain-openai`: its chat model, its older text model, its embeddings."""

import math

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from langchain_openai.chat_models import base
from pydantic import BaseModel, Field

from cases import MODEL, ROOT, TOO_LONG, case, refusal, run

NODE = dict(model=MODEL, base_url=f"{ROOT}/v1", api_key="none", max_retries=0, timeout=120)


class River(BaseModel):
    """A river."""

    name: str = Field(max_length=20)
    long: bool


@tool
def weather(city: str) -> str:
    """Get the weather of a city."""
    return f"sunny in {city}"


def chat(**changed):
    return ChatOpenAI(**{**NODE, "temperature": 0, "max_tokens": 48, **changed})


@case
def a_stream_tells_the_same():
    whole = chat().invoke("Name three rivers.")
    assert whole.content and whole.usage_metadata["output_tokens"] > 0, whole
    chunks = list(chat(stream_usage=True).stream("Name three rivers."))
    assert len(chunks) > 3 and "".join(chunk.content for chunk in chunks) == whole.content
    used = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    assert used and used[-1]["output_tokens"] == whole.usage_metadata["output_tokens"], used


@case
def a_tool_round_trip():
    question = HumanMessage("What is the weather in Paris?")
    calling = chat().bind_tools([weather], tool_choice="weather", strict=True)
    called = calling.invoke([question])
    (call,) = called.tool_calls
    assert call["name"] == "weather" and list(call["args"]) == ["city"], call
    result = weather.invoke(call)
    assert isinstance(result, ToolMessage)
    assert chat().invoke([question, called, result]).content
    streamed = None
    for chunk in calling.stream([question]):
        streamed = chunk if streamed is None else streamed + chunk
    assert [c["args"] for c in streamed.tool_calls] == [call["args"]], streamed


@case
def structured_output():
    for method in ("json_schema", "function_calling"):
        asking = chat(max_tokens=200).with_structured_output(River, method=method)
        assert isinstance(asking.invoke("Tell me of the Nile."), River), method


@case
def the_responses_dialect():
    assert chat(use_responses_api=True).invoke("Name a river.").text


@case
def texts_are_completed():
    text = OpenAI(**NODE, temperature=0, max_tokens=8)
    whole = text.invoke("The Nile is")
    assert whole and "".join(text.stream("The Nile is")) == whole


@case
def embeddings():
    # Without a tokenizer of its own it sends texts, not tokens of OpenAI's models.
    embedder = OpenAIEmbeddings(**NODE, check_embedding_ctx_length=False)
    first, second = embedder.embed_documents(["a river", "the sea"])
    assert math.dist(first, embedder.embed_query("a river")) < 1e-3 < math.dist(first, second)


refusal("unknown model", base.OpenAIModelNotFoundError,
        lambda: chat(model="no-such-model").invoke("Hello"), code="model_not_found")  # fmt: skip
refusal("too long a prompt", base.OpenAIContextOverflowError,
        lambda: chat().invoke(TOO_LONG), code="context_length_exceeded")  # fmt: skip

run()
