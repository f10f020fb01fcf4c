"""Pydantic AI (`pydantic-ai-slim`): agents with typed results, tools and streams."""

import asyncio

from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ToolCallPart, ToolReturnPart
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from cases import MODEL, ROOT, TOO_LONG, case, refusal, run

SETTINGS = {"temperature": 0, "max_tokens": 200, "timeout": 120}


class River(BaseModel):
    """A river."""

    name: str = Field(max_length=20)
    long: bool


def agent(model=MODEL, **changed):
    provider = OpenAIProvider(base_url=f"{ROOT}/v1", api_key="none")
    chat = OpenAIChatModel(model, provider=provider)
    return Agent(chat, **{"model_settings": SETTINGS, "retries": 0, **changed})


@case
def texts():
    answer = agent(model_settings={**SETTINGS, "max_tokens": 24}).run_sync("Name three rivers.")
    assert answer.output and answer.usage.output_tokens > 0, answer


@case
def a_stream_tells_the_same():
    asked = agent(model_settings={**SETTINGS, "max_tokens": 24})

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
def a_tool_is_called_and_its_result_is_told():
    # The first request must call something, and only the tool is there; then the result ends it.
    asked, calls = agent(output_type=ToolOutput(River)), []

    @asked.tool_plain
    def length_of_river(name: River) -> int:
        """Get the length of a river in kilometres."""
        calls.append(name)
        return 6650

    answer = asked.run_sync("Tell me of the Nile.")
    parts = [part for message in answer.all_messages() for part in message.parts]
    made = [part for part in parts if isinstance(part, ToolCallPart)]
    told = [part for part in parts if isinstance(part, ToolReturnPart)]
    assert {part.tool_call_id for part in made} == {part.tool_call_id for part in told}, parts
    assert isinstance(answer.output, River) and len(calls) == len(made) - 1, parts


def asking(prompt, **changed):
    return lambda: agent(**changed).run_sync(prompt)


refusal("unknown model", ModelHTTPError, asking("Hello", model="no-such-model"),
        status_code=404, body="model_not_found")  # fmt: skip
refusal("too long a prompt", ModelHTTPError, asking(TOO_LONG),
        status_code=400, body="context_length_exceeded")  # fmt: skip

run()
