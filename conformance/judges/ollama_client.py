"""The official `ollama` client for Python, under the path /ollama."""

import ollama
from pydantic import BaseModel, ConfigDict, Field

from cases import MODEL, ROOT, TOO_LONG, case, refusal, run

client = ollama.Client(host=f"{ROOT}/ollama", timeout=120)
QUESTION = [{"role": "user", "content": "Name three rivers."}]
OPTIONS = {"temperature": 0, "num_predict": 24}


class River(BaseModel):
    # Else the model may think of more and more properties.
    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=20)
    long: bool


def weather(city: str) -> str:
    """Get the weather.

    Args:
        city: the city
    """
    return f"sunny in {city}"


def chat(**changed):
    return client.chat(**{**dict(model=MODEL, messages=QUESTION, options=OPTIONS), **changed})


def generate(**changed):
    return client.generate(**{**dict(model=MODEL, prompt="The Nile is", options=OPTIONS), **changed})


def check_end(last):
    assert last.done and last.done_reason in ("stop", "length"), last
    assert last.eval_count > 0 and last.prompt_eval_count > 0 and last.total_duration > 0, last


@case
def chat_whole_and_streamed_are_equal():
    whole = chat()
    assert whole.model == MODEL and whole.message.role == "assistant" and whole.message.content
    check_end(whole)
    parts = list(chat(stream=True))
    assert len(parts) > 3 and not any(part.done for part in parts[:-1])
    check_end(parts[-1])
    assert "".join(part.message.content or "" for part in parts) == whole.message.content


@case
def generate_whole_and_streamed_are_equal():
    whole = generate(system="You are brief.")
    check_end(whole)
    parts = list(generate(system="You are brief.", stream=True))
    assert len(parts) > 3 and "".join(part.response for part in parts) == whole.response
    assert generate(raw=True).response != whole.response


@case
def options_are_obeyed():
    whole = chat().message.content
    stopped = chat(options={**OPTIONS, "stop": [whole[4:8]]})
    assert stopped.message.content == whole[: whole.index(whole[4:8])], stopped
    assert chat(options={**OPTIONS, "num_predict": 3}).eval_count == 3
    warm = {"temperature": 1.0, "num_predict": 12, "seed": 5}
    assert chat(options=warm).message.content == chat(options=warm).message.content


@case
def a_format_binds():
    schema = River.model_json_schema()
    options = {**OPTIONS, "num_predict": 200}
    River.model_validate_json(chat(format=schema, options=options).message.content)
    answer = generate(prompt="Name a river.", format=schema, options=options)
    River.model_validate_json(answer.response)
    assert chat(format="json").message.content.lstrip().startswith("{")


@case
def a_tool_round_trip():
    # This dialect has no way to demand a call, so whether there is one is up to the model.
    question = [{"role": "user", "content": "Call the function weather for the city of Paris."}]
    call = {"function": {"name": "weather", "arguments": {"city": "Paris"}}}
    history = [*question, {"role": "assistant", "tool_calls": [call]},
               {"role": "tool", "tool_name": "weather", "content": weather("Paris")}]  # fmt: skip
    asked = dict(tools=[weather], options={**OPTIONS, "num_predict": 64})
    for messages in (question, history):
        whole = chat(messages=messages, **asked).message
        parts = [part.message for part in chat(messages=messages, stream=True, **asked)]
        assert whole.content or whole.tool_calls, whole
        assert "".join(part.content or "" for part in parts) == (whole.content or "")
        streamed = [call for part in parts for call in part.tool_calls or []]
        assert streamed == list(whole.tool_calls or []), (streamed, whole.tool_calls)
        for made in streamed:
            assert made.function.name == "weather" and set(made.function.arguments) == {"city"}


@case
def embeddings():
    several = client.embed(model=MODEL, input=["a river", "the sea"])
    assert len(several.embeddings) == 2 and several.prompt_eval_count > 3, several
    assert client.embed(model=MODEL, input="a river").embeddings == [several.embeddings[0]]
    assert len(client.embeddings(model=MODEL, prompt="a river").embedding) > 100


@case
def models():
    (listed,) = client.list().models
    assert listed.model == MODEL and listed.size > 10**6, listed
    shown = client.show(MODEL)
    assert shown.details.format == "gguf" and "completion" in shown.capabilities, shown
    assert shown.modelinfo and shown.template, shown
    (loaded,) = client.ps().models
    assert loaded.model == MODEL and loaded.size > 10**6, loaded


@case
def pulling_what_is_here_succeeds():
    assert client.pull(MODEL).status == "success"
    assert [part.status for part in client.pull(MODEL, stream=True)][-1] == "success"


def refused(name, call, status_code=400, **changed):
    refusal(name, ollama.ResponseError, lambda: call(**changed), status_code=status_code)


LONG = [{"role": "user", "content": TOO_LONG}]
refused("unknown model", chat, 404, model="no-such-model")
refused("unknown model, streamed", lambda **changed: list(chat(**changed)), 404,
        model="no-such-model", stream=True)  # fmt: skip
refused("showing an unknown model", client.show, 404, model="no-such-model")
refused("too long a prompt", chat, messages=LONG)
refused("too long a text", generate, prompt=TOO_LONG)
refused("a temperature of 9", chat, options={"temperature": 9})

run()
