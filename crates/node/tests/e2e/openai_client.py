"""The official client against a node: arguments are the base URL and the model's name."""

import sys

import openai

base_url, model = sys.argv[1:]
client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=60)
messages = [
    {"role": "system", "content": "You are brief."},
    {"role": "user", "content": "Name three rivers."},
]
asked = dict(model=model, messages=messages, temperature=0.7, seed=3, max_tokens=24)

assert [card.id for card in client.models.list()] == [model]

whole = client.chat.completions.create(**asked)
choice = whole.choices[0]
assert choice.message.role == "assistant" and choice.message.content, whole
assert choice.finish_reason in ("stop", "length"), whole
usage = whole.usage
assert usage.prompt_tokens > 5 and 0 < usage.completion_tokens <= 24, whole
assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, whole

chunks = list(
    client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    )
)
assert len({chunk.id for chunk in chunks}) == 1
assert chunks[0].choices[0].delta.role == "assistant", chunks[0]
text = "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices)
assert text == choice.message.content, (text, choice.message.content)
reasons = [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason]
assert reasons == [choice.finish_reason], reasons
assert chunks[-1].choices == [] and chunks[-1].usage == usage, chunks[-1]
assert all(chunk.usage is None for chunk in chunks[:-1])
pieces = [c for chunk in chunks for c in chunk.choices if c.delta.content]
assert len(pieces) > 3, "the answer came in pieces"

# Hanging up in the middle is no error of either side.
with client.chat.completions.create(**asked, stream=True) as stream:
    next(iter(stream))

stopped = client.chat.completions.create(**asked, stop=text[4:8])
assert stopped.choices[0].message.content == text[: text.index(text[4:8])], stopped
assert stopped.choices[0].finish_reason == "stop"


def refused(kind, code, **changed):
    """Asserts that a request is refused with an error of this class and code."""
    try:
        client.chat.completions.create(**{**asked, **changed})
    except kind as error:
        assert type(error) is kind and error.code == code, repr(error)
        return error
    raise AssertionError(f"{code} was expected for {changed}")


error = refused(openai.NotFoundError, "model_not_found", model="no-such-model")
assert "no-such-model" in error.message, error.message
long = [{"role": "user", "content": "river " * 600}]
error = refused(openai.BadRequestError, "context_length_exceeded", messages=long)
assert "512" in error.message and error.param == "messages", error.message
refused(openai.BadRequestError, "context_length_exceeded", messages=long, stream=True)
error = refused(openai.BadRequestError, "invalid_value", temperature=9)
assert error.param == "temperature", error.param

print("all of it")
