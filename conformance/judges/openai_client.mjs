// The official `openai` client for Node.js. It is told where packages are by where it runs.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const { default: OpenAI } = createRequire(`${process.cwd()}/`)("openai");
const { MYZEL_URL, MYZEL_MODEL: model } = process.env;
const client = new OpenAI({ baseURL: `${MYZEL_URL}/v1`, apiKey: "none", maxRetries: 0, timeout: 120_000 });

const messages = [{ role: "user", content: "Name three rivers." }];
const weather = {
  type: "function",
  function: {
    name: "weather",
    description: "Get the weather",
    parameters: {
      type: "object",
      properties: { city: { type: "string", maxLength: 20 } },
      required: ["city"],
      additionalProperties: false,
    },
  },
};
const river = {
  type: "object",
  properties: { name: { type: "string", maxLength: 20 }, long: { type: "boolean" } },
  required: ["name", "long"],
  additionalProperties: false,
};
const long = "river ".repeat(9000);

const base = { model, messages, temperature: 0, max_tokens: 24 };
const chat = (changed) => client.chat.completions.create({ ...base, ...changed });
const respond = (changed) =>
  client.responses.create({ model, input: "Name a river.", temperature: 0, max_output_tokens: 24, ...changed });

async function all(stream) {
  const items = [];
  for await (const item of await stream) items.push(item);
  return items;
}

const refused = (call, kind, wanted) => assert.rejects(call, (error) => {
  assert.equal(error.constructor, kind);
  for (const [name, value] of Object.entries(wanted)) assert.equal(error[name], value);
  return true;
});

const cases = {
  async models() {
    assert.deepEqual((await all(client.models.list())).map((card) => card.id), [model]);
  },
  async "chat whole and streamed are equal"() {
    const whole = await chat();
    const chunks = await all(chat({ stream: true, stream_options: { include_usage: true } }));
    const text = chunks.flatMap((chunk) => chunk.choices).map((choice) => choice.delta.content ?? "");
    assert.equal(text.join(""), whole.choices[0].message.content);
    assert.deepEqual(chunks.at(-1).usage, whole.usage);
    assert.deepEqual(chunks.at(-1).choices, []);
  },
  async "tools round trip"() {
    const asked = { messages: [{ role: "user", content: "What is the weather in Paris?" }], tools: [weather] };
    const { message, finish_reason } = (await chat({ ...asked, max_tokens: 64, tool_choice: "required",
      parallel_tool_calls: false })).choices[0];
    assert.equal(finish_reason, "tool_calls");
    assert.deepEqual(Object.keys(JSON.parse(message.tool_calls[0].function.arguments)), ["city"]);
    const told = [message, { role: "tool", tool_call_id: message.tool_calls[0].id, content: "sunny" }];
    const answer = await chat({ tools: [weather], messages: [...asked.messages, ...told], tool_choice: "none" });
    assert.ok(answer.choices[0].message.content);
    const stream = client.chat.completions.stream({ ...base, ...asked, max_tokens: 64, tool_choice: "required",
      parallel_tool_calls: false });
    const [call] = (await stream.finalChatCompletion()).choices[0].message.tool_calls;
    assert.equal(call.function.arguments, message.tool_calls[0].function.arguments);
  },
  async "structured output"() {
    const response_format = { type: "json_schema", json_schema: { name: "river", strict: true, schema: river } };
    const answer = await client.chat.completions.parse({ ...base, max_tokens: 200, response_format });
    assert.deepEqual(Object.keys(JSON.parse(answer.choices[0].message.content)), ["name", "long"]);
  },
  async "embeddings, packed and plain"() {
    const [packed, plain] = await Promise.all([{}, { encoding_format: "float" }].map((format) =>
      client.embeddings.create({ model, input: "a river", ...format })));
    const [a, b] = [packed.data[0].embedding, plain.data[0].embedding];
    assert.equal(a.length, b.length);
    a.forEach((value, at) => assert.ok(Math.abs(value - b[at]) < 1e-3));
  },
  async "responses and their events"() {
    const whole = await respond();
    const events = await all(respond({ stream: true }));
    const deltas = events.filter((event) => event.type === "response.output_text.delta");
    assert.equal(deltas.map((event) => event.delta).join(""), whole.output_text);
    assert.equal(events[0].type, "response.created");
    assert.equal(events.at(-1).type, `response.${whole.status}`);
  },
  async completions() {
    assert.ok((await client.completions.create({ model, prompt: "The Nile is", max_tokens: 4 })).choices[0].text);
  },
  "unknown model": () => refused(chat({ model: "no-such-model" }), OpenAI.NotFoundError,
    { status: 404, code: "model_not_found" }),
  "too long a prompt": () => refused(chat({ messages: [{ role: "user", content: long }] }),
    OpenAI.BadRequestError, { status: 400, code: "context_length_exceeded" }),
  "a temperature of 9": () => refused(chat({ temperature: 9 }), OpenAI.BadRequestError, { param: "temperature" }),
};

const counts = { ok: 0, FAILED: 0 };
for (const [name, check] of Object.entries(cases)) {
  const verdict = await check().then(() => "ok", (error) => (console.log(error), "FAILED"));
  counts[verdict] += 1;
  console.log(verdict.padEnd(6), name);
}
console.log(`${counts.ok} passed, ${counts.FAILED} failed`);
process.exitCode = counts.FAILED > 0 ? 1 : 0;
