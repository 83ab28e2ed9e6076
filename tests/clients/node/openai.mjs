// What the openai package makes of a gateway's answers, as one JSON object:
// node openai.mjs BASE_URL LOCKED_URL, the second of one without nodes that wants the key "right".
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const model = "SmolLM2-135M-Instruct";
const ask = (content) => ({ model, messages: [{ role: "user", content }], max_tokens: 40, temperature: 0, seed: 5 });
const [open, locked] = process.argv.slice(2);
const client = new OpenAI({ baseURL: open, apiKey: "any", maxRetries: 0 });

const weather = {
  type: "function",
  function: {
    name: "get_weather",
    strict: true,
    parameters: {
      type: "object",
      properties: { city: { type: "string", maxLength: 12 }, days: { type: "integer", minimum: 1, maximum: 7 } },
      required: ["city", "days"],
      additionalProperties: false,
    },
  },
};
const forced = {
  ...ask("What is the weather in Paris?"),
  tools: [weather],
  tool_choice: { type: "function", function: { name: "get_weather" } },
};
const Cat = z.object({ name: z.string().max(12), age: z.int() });

async function streamed() {
  const wanted = { ...ask("Name three colours."), stream: true, stream_options: { include_usage: true } };
  const { data: stream, request_id, response } = await client.chat.completions.create(wanted).withResponse();
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return { chunks, request_id, type: response.headers.get("content-type") };
}

async function helper() {
  const wanted = { ...ask("Name three colours."), logprobs: true, stream_options: { include_usage: true } };
  const runner = client.chat.completions.stream(wanted);
  let deltas = "";
  runner.on("content", (delta) => (deltas += delta));
  const { choices } = await runner.finalChatCompletion();
  return { deltas, choice: choices[0], usage: await runner.totalUsage() };
}

async function streamedCall() {
  const runner = client.chat.completions.stream(forced);
  const fragments = [];
  runner.on("tool_calls.function.arguments.delta", (event) => fragments.push(event.arguments_delta));
  const final = await runner.finalChatCompletion();
  return { fragments, choice: final.choices[0] };
}

async function toolsRun() {
  const called = [];
  const tool = {
    ...weather,
    function: { ...weather.function, parse: JSON.parse, function: (given) => (called.push(given), "sunny") },
  };
  const runner = client.chat.completions.runTools({ ...forced, tools: [tool] });
  return { called, result: await runner.finalFunctionToolCallResult() };
}

async function parsed() {
  const format = zodResponseFormat(Cat, "cat");
  const done = await client.chat.completions.parse({ ...ask("Describe a cat."), response_format: format });
  return done.choices[0].message;
}

async function refused(more, options = {}) {
  try {
    await client.withOptions(options).chat.completions.create({ ...ask("Hello."), ...more });
    return null;
  } catch (error) {
    const { status, code, param, type, requestID } = error;
    return { name: error.constructor.name, status, code, param, type, requestID };
  }
}

async function left() {
  const controller = new AbortController();
  const wanted = { ...ask("Count to a hundred."), max_tokens: 200, stream: true };
  const stream = await client.chat.completions.create(wanted, { signal: controller.signal });
  let chunks = 0;
  for await (const _ of stream) if (++chunks === 3) controller.abort();
  return chunks;
}

const found = {
  models: (await client.models.list()).data.map((one) => one.id),
  whole: await client.chat.completions.create(ask("Name three colours.")),
  streamed: await streamed(),
  helper: await helper(),
  streamedCall: await streamedCall(),
  toolsRun: await toolsRun(),
  parsed: await parsed(),
  left: await left(),
  errors: {
    model: await refused({ model: "gpt-nowhere" }),
    range: await refused({ temperature: 3 }),
    long: await refused({ messages: [{ role: "user", content: "word ".repeat(20_000) }] }),
    streamed: await refused({ stream: true, messages: [{ role: "user", content: [{ type: "text" }] }] }),
    key: await refused({}, { baseURL: locked, apiKey: "wrong" }),
    nodes: await refused({}, { baseURL: locked, apiKey: "right" }),
  },
};
console.log(JSON.stringify(found));
