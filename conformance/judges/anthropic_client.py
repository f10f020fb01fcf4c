"""The official `anthropic` client for Python."""

import anthropic

from cases import MODEL, ROOT, TOO_LONG, case, refusal, run

client = anthropic.Anthropic(base_url=ROOT, api_key="none", max_retries=0, timeout=120)
QUESTION = [{"role": "user", "content": "Name three rivers."}]
WEATHER_QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]
WEATHER = {
    "name": "weather",
    "description": "Get the weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


def ask(create=client.messages.create, temperature=0, **changed):
    # The client knows no temperature any more; the dialect does.
    asked = dict(model=MODEL, messages=QUESTION, max_tokens=24)
    return create(**{**asked, **changed}, extra_body={"temperature": temperature})


@case
def messages():
    answer = ask(system="You are brief.")
    assert answer.type == "message" and answer.role == "assistant" and answer.model == MODEL
    assert [block.type for block in answer.content] == ["text"] and answer.content[0].text
    assert answer.stop_reason in ("end_turn", "max_tokens"), answer
    assert answer.usage.input_tokens + answer.usage.cache_read_input_tokens > 5 and 0 < answer.usage.output_tokens <= 24, answer.usage


@case
def stop_sequences_are_named():
    text = ask().content[0].text
    stopped = ask(stop_sequences=[text[4:8]])
    assert stopped.stop_reason == "stop_sequence" and stopped.stop_sequence == text[4:8], stopped
    assert stopped.content[0].text == text[: text.index(text[4:8])]


@case
def a_stream_tells_the_same_in_order():
    whole = ask()
    kinds = [event.type for event in ask(stream=True) if event.type != "ping"]
    deltas = kinds.count("content_block_delta")
    assert deltas > 3 and kinds == [
        "message_start", "content_block_start", *["content_block_delta"] * deltas,
        "content_block_stop", "message_delta", "message_stop",
    ], kinds  # fmt: skip
    with ask(client.messages.stream) as stream:
        assert "".join(stream.text_stream) == whole.content[0].text
        final = stream.get_final_message()
    assert final.stop_reason == whole.stop_reason and final.content[0].text == whole.content[0].text
    assert final.usage.output_tokens == whole.usage.output_tokens, final.usage


@case
def a_tool_round_trip():
    asked = dict(messages=WEATHER_QUESTION, tools=[WEATHER], max_tokens=64)
    asked["tool_choice"] = {"type": "any", "disable_parallel_tool_use": True}
    answer = ask(**asked)
    (use,) = [block for block in answer.content if block.type == "tool_use"]
    assert answer.stop_reason == "tool_use" and use.name == "weather" and use.id, answer
    assert list(use.input) == ["city"] and isinstance(use.input["city"], str), use
    with ask(client.messages.stream, **asked) as stream:
        (streamed,) = [b for b in stream.get_final_message().content if b.type == "tool_use"]
    assert streamed.input == use.input and streamed.name == use.name, streamed
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "sunny, 20 degrees"}
    history = [*WEATHER_QUESTION, {"role": "assistant", "content": answer.content},
               {"role": "user", "content": [result]}]  # fmt: skip
    told = ask(messages=history, tools=[WEATHER], tool_choice={"type": "none"})
    assert [block.type for block in told.content] == ["text"], told


@case
def a_named_tool_is_called():
    named = {"type": "tool", "name": "weather"}
    answer = ask(messages=WEATHER_QUESTION, tools=[WEATHER], tool_choice=named, max_tokens=64)
    assert [block.name for block in answer.content if block.type == "tool_use"] == ["weather"]


@case
def tokens_are_counted():
    few = client.messages.count_tokens(model=MODEL, messages=QUESTION).input_tokens
    usage = ask().usage
    assert few == usage.input_tokens + usage.cache_read_input_tokens
    many = client.messages.count_tokens(model=MODEL, messages=QUESTION, tools=[WEATHER])
    assert many.input_tokens > few + 20


def refused(name, kind=anthropic.BadRequestError, **changed):
    error = {anthropic.NotFoundError: "not_found_error"}.get(kind, "invalid_request_error")
    refusal(name, kind, lambda: ask(**changed), body=error)


LONG = [{"role": "user", "content": TOO_LONG}]
refused("unknown model", anthropic.NotFoundError, model="no-such-model")
refused("too long a prompt", messages=LONG)
refused("too long a prompt, streamed", messages=LONG, stream=True)
refused("a temperature of 9", temperature=9)
refused("no messages", messages=[])
refused("a tool that is not there", tools=[WEATHER], tool_choice={"type": "tool", "name": "tide"})

run()
