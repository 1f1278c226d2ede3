// The real OpenAI SDK for Node against the gateway: it behaves as against OpenAI.
// Run by tests/sdk/test_node_sdk.py, which starts the gateway and sets HEADGATE_URL, HEADGATE_KEY and FAKE_URL
// (the stand-in provider, told to misbehave through /__fake__/script).
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const { HEADGATE_URL: baseURL, HEADGATE_KEY: apiKey, FAKE_URL, FAKE_KEY } = process.env;
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 20_000 });
const model = "gpt-4o-mini";
const messages = [{ role: "user", content: "Say hello to the team." }];
const tools = [
  {
    type: "function",
    function: {
      name: "get_weather",
      parameters: {
        type: "object",
        properties: { city: { type: "string" } },
        required: ["city"],
        additionalProperties: false,
      },
    },
  },
];

async function script(...behaviours) {
  const answer = await fetch(`${FAKE_URL}/__fake__/script`, {
    method: "POST",
    headers: { authorization: `Bearer ${FAKE_KEY}`, "content-type": "application/json" },
    body: JSON.stringify(behaviours),
  });
  assert.equal(answer.status, 200);
}

test("chat", async () => {
  const { data, response, request_id } = await client.chat.completions.create({ model, messages }).withResponse();
  assert.ok(data.choices[0].message.content);
  assert.ok(data.usage.total_tokens > 0);
  assert.equal(response.headers.get("x-headgate-route"), "rented");
  assert.equal(request_id, response.headers.get("x-headgate-call-id"));
});

test("stream, with usage for who asked", async () => {
  for (const include_usage of [true, false]) {
    let text = "", usage = 0, finish;
    const stream = await client.chat.completions.create({
      model, messages, stream: true, stream_options: { include_usage },
    });
    for await (const event of stream) {
      text += event.choices[0]?.delta?.content ?? "";
      finish = event.choices[0]?.finish_reason ?? finish;
      usage += event.usage ? 1 : 0;
    }
    assert.ok(text);
    assert.equal(finish, "stop");
    assert.equal(usage, include_usage ? 1 : 0);
  }
});

test("stream helper with a tool call", async () => {
  const runner = client.chat.completions.stream({ model, messages, tools, tool_choice: "required" });
  const final = await runner.finalChatCompletion();
  assert.equal(final.choices[0].finish_reason, "tool_calls");
  assert.ok("city" in JSON.parse(final.choices[0].message.tool_calls[0].function.arguments));
});

test("json schema", async () => {
  const answer = await client.chat.completions.create({
    model,
    messages,
    response_format: {
      type: "json_schema",
      json_schema: {
        name: "ticket",
        strict: true,
        schema: {
          type: "object",
          properties: { urgent: { type: "boolean" } },
          required: ["urgent"],
          additionalProperties: false,
        },
      },
    },
  });
  assert.equal(typeof JSON.parse(answer.choices[0].message.content).urgent, "boolean");
});

test("completions", async () => {
  const answer = await client.completions.create({ model: "gpt-3.5-turbo-instruct", prompt: "Once", max_tokens: 5 });
  assert.ok(answer.choices[0].text);
});

test("embeddings", async () => {
  const answer = await client.embeddings.create({ model: "text-embedding-3-small", input: ["a", "b"], dimensions: 8 });
  assert.deepEqual(answer.data.map((item) => item.embedding.length), [8, 8]);
});

test("models", async () => {
  const ids = [];
  for await (const item of client.models.list()) ids.push(item.id);
  assert.ok(ids.includes("home-model"));
  assert.equal((await client.models.retrieve("home-model")).id, "home-model");
  await assert.rejects(client.models.retrieve("no-such-model"), OpenAI.NotFoundError);
});

const classes = {
  400: OpenAI.BadRequestError,
  403: OpenAI.PermissionDeniedError,
  404: OpenAI.NotFoundError,
  409: OpenAI.ConflictError,
  422: OpenAI.UnprocessableEntityError,
  429: OpenAI.RateLimitError,
  500: OpenAI.InternalServerError,
};
for (const [status, kind] of Object.entries(classes)) {
  test(`error ${status}`, async () => {
    await script({ status: Number(status), error: { message: "told to", type: "test", param: null, code: "told_to" } });
    await assert.rejects(client.chat.completions.create({ model, messages }), (error) => {
      assert.ok(error instanceof kind);
      assert.equal(error.code, "told_to");
      return true;
    });
  });
}

test("wrong key", async () => {
  const stranger = new OpenAI({ baseURL, apiKey: "sk-wrong", maxRetries: 0 });
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
});

test("timeout", async () => {
  await script({ hang: true });
  await assert.rejects(
    client.chat.completions.create({ model, messages }, { timeout: 500 }),
    OpenAI.APIConnectionTimeoutError,
  );
});

test("a broken stream is an error, not an end", async () => {
  await script({ break_after: 2 });
  const stream = await client.chat.completions.create({ model, messages, stream: true });
  await assert.rejects(async () => {
    for await (const event of stream) assert.ok(!event.choices[0]?.finish_reason);
  }, /broke off/);
});
