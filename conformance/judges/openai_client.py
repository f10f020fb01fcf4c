"""The official `openai` client for Python, of either major version."""

import json
import math
import urllib.request

import openai
from pydantic import BaseModel, Field

from cases import MODEL, ROOT, TOO_LONG, case, refusal, run

client = openai.OpenAI(base_url=f"{ROOT}/v1", api_key="none", max_retries=0, timeout=120)
QUESTION = [
    {"role": "system", "content": "You are brief."},
    {"role": "user", "content": "Name three rivers."},
]
WEATHER_QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]


def tool(name, argument):
    schema = {
        "type": "object",
        "properties": {argument: {"type": "string", "maxLength": 20}},
        "required": [argument],
        "additionalProperties": False,
    }
    function = {"name": name, "description": f"Get the {name}", "parameters": schema}
    return {"type": "function", "function": function}


TOOLS = [tool("weather", "city"), tool("time", "zone")]
# A small model that may call several functions at once does not stop calling.
ONE_CALL = dict(messages=WEATHER_QUESTION, temperature=0, max_tokens=64, parallel_tool_calls=False)


class River(BaseModel):
    name: str = Field(max_length=20)
    long: bool


def chat(**changed):
    asked = dict(model=MODEL, messages=QUESTION, temperature=0.8, seed=3, max_tokens=24)
    return client.chat.completions.create(**{**asked, **changed})


def complete(**changed):
    asked = dict(model=MODEL, prompt="The Nile is", temperature=0, max_tokens=6)
    return client.completions.create(**{**asked, **changed})


def respond(**changed):
    asked = dict(model=MODEL, input="Name a river.", temperature=0, max_output_tokens=24)
    return client.responses.create(**{**asked, **changed})


def text_of(answer):
    return answer.choices[0].message.content


def tokens_of(text):
    """The ids of a text's tokens, from the node's own endpoint."""
    body = json.dumps({"content": text}).encode()
    asked = urllib.request.Request(
        f"{ROOT}/tokenize", body, headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return json.load(answer)["tokens"]


@case
def models():
    assert [card.id for card in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).object == "model"


@case
def chat_whole_and_streamed_are_equal():
    whole = chat()
    choice, usage = whole.choices[0], whole.usage
    assert choice.message.role == "assistant" and choice.message.content, whole
    assert choice.finish_reason in ("stop", "length") and whole.system_fingerprint, whole
    assert usage.prompt_tokens > 5 and 0 < usage.completion_tokens <= 24, usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage

    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant", chunks[0]
    deltas = [c for chunk in chunks for c in chunk.choices]
    assert "".join(c.delta.content or "" for c in deltas) == choice.message.content
    assert [c.finish_reason for c in deltas if c.finish_reason] == [choice.finish_reason]
    assert chunks[-1].choices == [] and chunks[-1].usage == usage, chunks[-1]
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert sum(bool(c.delta.content) for c in deltas) > 3, "the answer came in pieces"


@case
def a_stream_without_being_asked_has_no_usage():
    assert all(chunk.usage is None and chunk.choices for chunk in chat(stream=True))


@case
def hanging_up_harms_nobody():
    with chat(stream=True) as stream:
        next(iter(stream))
    assert text_of(chat())


@case
def contents_in_parts_and_the_developer_role():
    parts = [
        {"role": "developer", "content": [{"type": "text", "text": "You are brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "Name three "},
                                     {"type": "text", "text": "rivers."}]},
    ]  # fmt: skip
    assert text_of(chat(messages=parts, max_completion_tokens=4, max_tokens=openai.NOT_GIVEN))


@case
def the_seed_decides():
    assert text_of(chat()) == text_of(chat())
    assert len({text_of(chat(seed=seed)) for seed in range(4)}) > 1


@case
def stop_strings_end_an_answer_and_are_not_shown():
    whole = text_of(chat())
    for stop in (whole[4:8], ["not in it", whole[4:8]]):
        stopped = chat(stop=stop).choices[0]
        assert stopped.message.content == whole[: whole.index(whole[4:8])], stopped
        assert stopped.finish_reason == "stop"


@case
def several_choices():
    answer = chat(n=2, max_tokens=8)
    assert sorted(choice.index for choice in answer.choices) == [0, 1]
    assert len({choice.message.content for choice in answer.choices}) == 2, answer
    assert 8 < answer.usage.completion_tokens <= 16, answer.usage
    streamed = {0: "", 1: ""}
    for chunk in chat(n=2, max_tokens=8, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == {c.index: c.message.content for c in answer.choices}


@case
def log_probabilities():
    answer = chat(logprobs=True, top_logprobs=3, temperature=0)
    content = answer.choices[0].logprobs.content
    text = b"".join(bytes(token.bytes) for token in content).decode()
    assert text.startswith(text_of(answer)), (text, text_of(answer))
    for token in content:
        assert len(token.top_logprobs) == 3 and token.logprob <= 0, token
        assert token.top_logprobs[0].token == token.token, "temperature 0 takes the likeliest"
        assert sum(math.exp(top.logprob) for top in token.top_logprobs) <= 1.001, token
    streamed = [
        token
        for chunk in chat(logprobs=True, top_logprobs=3, temperature=0, stream=True)
        for choice in chunk.choices
        for token in (choice.logprobs.content if choice.logprobs else [])
    ]
    assert [token.token for token in streamed] == [token.token for token in content]
    assert chat().choices[0].logprobs is None


@case
def logit_bias_bans_and_forces():
    forced = tokens_of(" river")[-1]
    answer = complete(logit_bias={str(forced): 100}, max_tokens=3)
    assert answer.choices[0].text == " river" * 3, answer
    banned = complete(logit_bias={str(forced): 100, **{str(forced): -100}}, prompt=" river" * 20)
    assert " river" not in banned.choices[0].text, banned


def check_call(message, name, argument):
    """The one call of a message, its arguments as the tool's schema says."""
    (call,) = message.tool_calls
    assert call.id and call.type == "function" and call.function.name == name, call
    arguments = json.loads(call.function.arguments)
    assert list(arguments) == [argument] and isinstance(arguments[argument], str), arguments
    return call


@case
def a_tool_round_trip():
    asked = dict(**ONE_CALL, tools=TOOLS[:1])
    choice = chat(**asked, tool_choice="required").choices[0]
    assert choice.finish_reason == "tool_calls", choice
    call = check_call(choice.message, "weather", "city")
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny, 20 degrees"}
    history = [*WEATHER_QUESTION, choice.message.model_dump(exclude_none=True), result]
    answer = chat(**{**asked, "messages": history}, tool_choice="none").choices[0]
    assert answer.message.content and not answer.message.tool_calls, answer


@case
def a_streamed_tool_call_equals_the_whole_one():
    asked = dict(**ONE_CALL, tools=TOOLS[:1], tool_choice="required")
    whole = check_call(chat(**asked).choices[0].message, "weather", "city")
    chunks = [c for chunk in chat(**asked, stream=True) for c in chunk.choices]
    calls = [call for c in chunks for call in c.delta.tool_calls or []]
    assert {call.index for call in calls} == {0} and calls[0].id and len(calls) > 1, calls
    assert [call.function.name for call in calls if call.function.name] == ["weather"]
    arguments = "".join(call.function.arguments or "" for call in calls)
    assert arguments == whole.function.arguments, arguments
    assert chunks[-1].finish_reason == "tool_calls", chunks[-1]
    with client.chat.completions.stream(model=MODEL, **asked) as stream:
        final = stream.get_final_completion().choices[0].message
    assert check_call(final, "weather", "city").function.arguments == arguments


@case
def tool_choice_named_none_and_auto():
    asked = dict(**ONE_CALL, tools=TOOLS)
    named = {"type": "function", "function": {"name": "time"}}
    check_call(chat(**asked, tool_choice=named).choices[0].message, "time", "zone")
    none = chat(**asked, tool_choice="none").choices[0]
    assert none.message.content and not none.message.tool_calls, none
    free = chat(**asked, tool_choice="auto").choices[0]
    calls = free.message.tool_calls or []
    assert (free.finish_reason == "tool_calls") == bool(calls), free
    for call in calls:
        check_call(free.message.model_copy(update={"tool_calls": [call]}), call.function.name,
                   {"weather": "city", "time": "zone"}[call.function.name])  # fmt: skip


@case
def structured_output_is_parsed():
    parse = client.chat.completions.parse
    asked = dict(model=MODEL, messages=QUESTION, temperature=0, max_tokens=200)
    answer = parse(**asked, response_format=River).choices[0]
    assert isinstance(answer.message.parsed, River) and answer.finish_reason == "stop", answer
    strict = openai.pydantic_function_tool(River)
    asked["parallel_tool_calls"] = False
    called = parse(**asked, tools=[strict], tool_choice="required").choices[0]
    assert isinstance(called.message.tool_calls[0].function.parsed_arguments, River), called
    free = chat(response_format={"type": "json_object"}, temperature=0, max_tokens=200)
    if free.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text_of(free)), dict), free


@case
def completions_of_every_kind_of_prompt():
    whole = complete()
    choice = whole.choices[0]
    assert choice.text and choice.finish_reason in ("stop", "length"), whole
    assert complete(echo=True).choices[0].text == "The Nile is" + choice.text
    assert complete(prompt=tokens_of("The Nile is")).choices[0].text == choice.text
    several = complete(prompt=["The Nile is", "The Rhine is"])
    assert [c.index for c in several.choices] == [0, 1], several
    assert several.choices[0].text == choice.text, several
    assert "".join(c.choices[0].text for c in complete(stream=True)) == choice.text


@case
def completions_with_log_probabilities():
    answer = complete(logprobs=2)
    found, text = answer.choices[0].logprobs, answer.choices[0].text
    assert "".join(found.tokens) == text and all(p <= 0 for p in found.token_logprobs), found
    assert all(len(top) >= 2 for top in found.top_logprobs), found.top_logprobs
    lengths = [len(token) for token in found.tokens]
    assert found.text_offset == [sum(lengths[:i]) for i in range(len(lengths))], found


@case
def embeddings_in_both_formats():
    texts = ["a river", "the sea", "a river"]
    packed = client.embeddings.create(model=MODEL, input=texts)
    plain = client.embeddings.create(model=MODEL, input=texts, encoding_format="float")
    assert [entry.index for entry in packed.data] == [0, 1, 2] and packed.usage.total_tokens > 3
    vectors = [entry.embedding for entry in packed.data]
    for vector, entry in zip(vectors, plain.data):
        assert all(math.isclose(a, b, abs_tol=1e-5) for a, b in zip(vector, entry.embedding))
        assert math.isclose(math.hypot(*vector), 1, abs_tol=1e-3), math.hypot(*vector)
    assert math.dist(vectors[0], vectors[2]) < 1e-3 < math.dist(vectors[0], vectors[1])
    ids = client.embeddings.create(model=MODEL, input=tokens_of("a river"))
    assert math.dist(ids.data[0].embedding, vectors[0]) < 1e-3


@case
def responses():
    answer = respond(instructions="You are brief.")
    assert answer.output_text and answer.status in ("completed", "incomplete"), answer
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    turns = [
        {"role": "user", "content": "Name a river."},
        *[item.model_dump(exclude_none=True) for item in answer.output],
        {"role": "user", "content": [{"type": "input_text", "text": "And another."}]},
    ]
    assert respond(input=turns).output_text
    parsed = client.responses.parse(
        model=MODEL, input="Name a river.", text_format=River, temperature=0
    )
    assert isinstance(parsed.output_parsed, River), parsed


@case
def the_events_of_a_response_come_in_order():
    events = list(respond(stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    pieces = [event.delta for event in events if event.type.endswith("output_text.delta")]
    final = events[-1].response
    assert kinds == [
        "created", "in_progress", "output_item.added", "content_part.added",
        *["output_text.delta"] * len(pieces),
        "output_text.done", "content_part.done", "output_item.done", final.status,
    ], kinds  # fmt: skip
    assert len(pieces) > 3 and "".join(pieces) == final.output_text == respond().output_text


@case
def a_response_calls_a_function():
    flat = {"type": "function", "strict": True, **TOOLS[0]["function"]}
    asked = dict(input="What is the weather in Paris?", tools=[flat], max_output_tokens=64)
    asked.update(tool_choice="required", parallel_tool_calls=False)
    (call,) = respond(**asked).output
    assert call.type == "function_call" and list(json.loads(call.arguments)) == ["city"], call
    events = list(respond(**asked, stream=True))
    deltas = [event.delta for event in events if event.type.endswith("arguments.delta")]
    assert "".join(deltas) == call.arguments and len(deltas) > 1, deltas
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    turns = [{"role": "user", "content": asked["input"]}, call.model_dump(), result]
    assert respond(input=turns, tools=[flat], tool_choice="none").output_text


def refused(name, code, call=chat, kind=openai.BadRequestError, param="", **changed):
    refusal(name, kind, lambda: call(**changed), code=code, param=param)


LONG = [{"role": "user", "content": TOO_LONG}]
TOO_MUCH = "context_length_exceeded"
refused("unknown model", "model_not_found", kind=openai.NotFoundError, model="no-such-model")
refused("retrieving an unknown model", "model_not_found", lambda: client.models.retrieve("x/y"),
        kind=openai.NotFoundError)  # fmt: skip
refused("too long a prompt", TOO_MUCH, messages=LONG, param="messages")
refused("too long a prompt, streamed", TOO_MUCH, messages=LONG, stream=True)
refused("too long a completion", TOO_MUCH, complete, prompt=TOO_LONG)
refused("too long a response", TOO_MUCH, respond, input=TOO_LONG)
refused("a temperature of 9", "invalid_value", temperature=9, param="temperature")
refused("a thousand choices", "invalid_value", n=1000, param="n")
refused("log probabilities of a prompt", "", complete, echo=True, logprobs=1, param="echo")
refused("no messages", "", messages=[], param="messages")
refused("a tool that is not there", "", tools=TOOLS,
        tool_choice={"type": "function", "function": {"name": "tide"}})  # fmt: skip
refused("a response that is not kept", "", respond, previous_response_id="resp_1")

run()
