"""Pydantic AI (`pydantic-ai-slim`): agents with typed results, tools and streams."""

import asyncio

from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.direct import model_request_sync
from pydantic_ai.exceptions import ModelContextWindowExceededError, ModelNotFoundError
from pydantic_ai.messages import ModelRequest, ToolCallPart, ToolReturnPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.tools import ToolDefinition

from cases import MODEL, ROOT, TOO_LONG, case, refusal, run

SETTINGS = {"temperature": 0, "max_tokens": 200, "timeout": 120}
SHORT = {**SETTINGS, "max_tokens": 24}
WEATHER = ToolDefinition(
    name="weather",
    description="Get the weather",
    parameters_json_schema={
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    },
)


class River(BaseModel):
    """A river."""

    name: str = Field(max_length=20)
    long: bool


def chat(model=MODEL):
    return OpenAIChatModel(model, provider=OpenAIProvider(base_url=f"{ROOT}/v1", api_key="none"))


def agent(model=MODEL, **changed):
    return Agent(chat(model), **{"model_settings": SETTINGS, "retries": 0, **changed})


@case
def texts():
    answer = agent(model_settings=SHORT).run_sync("Name three rivers.")
    assert answer.output and answer.usage.output_tokens > 0, answer


@case
def a_stream_tells_the_same():
    asked = agent(model_settings=SHORT)

    async def streamed():
        async with asked.run_stream("Name three rivers.") as answer:
            return [piece async for piece in answer.stream_text(delta=True, debounce_by=None)]

    pieces = asyncio.run(streamed())
    assert len(pieces) > 3 and "".join(pieces) == asked.run_sync("Name three rivers.").output


@case
def structured_output():
    for kind in (ToolOutput, NativeOutput):
        answer = agent(output_type=kind(River)).run_sync("Tell me of the Nile.")
        assert isinstance(answer.output, River), (kind, answer)


@case
def a_tool_round_trip():
    question = ModelRequest.user_text_prompt("What is the weather in Paris?")
    must_call = ModelRequestParameters(function_tools=[WEATHER], allow_text_output=False)
    answer = model_request_sync(
        chat(), [question], model_settings=SETTINGS, model_request_parameters=must_call
    )
    (call,) = [part for part in answer.parts if isinstance(part, ToolCallPart)]
    assert call.tool_name == "weather" and list(call.args_as_dict()) == ["city"], call
    result = ModelRequest([ToolReturnPart("weather", "sunny", call.tool_call_id)])
    told = model_request_sync(chat(), [question, answer, result], model_settings=SHORT)
    assert told.text, told


def asking(prompt, **changed):
    return lambda: agent(**changed).run_sync(prompt)


refusal("unknown model", ModelNotFoundError, asking("Hello", model="no-such-model"),
        status_code=404, body="model_not_found")  # fmt: skip
refusal("too long a prompt", ModelContextWindowExceededError, asking(TOO_LONG),
        status_code=400, body="context_length_exceeded")  # fmt: skip

run()
