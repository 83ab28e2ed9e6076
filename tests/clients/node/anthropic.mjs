// What the anthropic package makes of a gateway's answers, as one JSON object: node anthropic.mjs BASE_URL LOCKED_URL,
// the second of one without nodes that wants the key "right".
import Anthropic from "@anthropic-ai/sdk";

const model = "SmolLM2-135M-Instruct";
const ask = (content) => ({ model, messages: [{ role: "user", content }], max_tokens: 40, temperature: 0 });
const [open, locked] = process.argv.slice(2);
const client = new Anthropic({ baseURL: open, apiKey: "any", maxRetries: 0 });

const tools = [
  {
    name: "get_weather",
    strict: true,
    input_schema: {
      type: "object",
      properties: { city: { type: "string", maxLength: 12 }, days: { type: "integer", minimum: 1, maximum: 7 } },
      required: ["city", "days"],
      additionalProperties: false,
    },
  },
];

async function helper() {
  const runner = client.messages.stream(ask("Name three colours."));
  const blocks = [];
  let deltas = "";
  runner.on("text", (delta) => (deltas += delta));
  runner.on("contentBlock", (block) => blocks.push(block));
  const message = await runner.finalMessage();
  return { deltas, blocks, message };
}

async function streamedCall() {
  const choice = { type: "tool", name: "get_weather" };
  const runner = client.messages.stream({ ...ask("What is the weather in Paris?"), tools, tool_choice: choice });
  const fragments = [];
  runner.on("inputJson", (fragment) => fragments.push(fragment));
  const message = await runner.finalMessage();
  return { fragments, message };
}

async function caught(promise) {
  try {
    await promise;
  } catch (error) {
    return { name: error.constructor.name, status: error.status, type: error.type, request_id: error.requestID };
  }
  return null;
}

const closed = (apiKey) => new Anthropic({ baseURL: locked, apiKey, maxRetries: 0 }).messages.create(ask("Hi"));
const found = {
  whole: await client.messages.create(ask("Name three colours.")),
  helper: await helper(),
  streamedCall: await streamedCall(),
  counted: await client.messages.countTokens({ model, messages: ask("Name three colours.").messages }),
  models: (await client.models.list()).data.map((one) => one.id),
  errors: {
    key: await caught(closed("wrong")),
    nodes: await caught(closed("right")),
    model: await caught(client.messages.create({ ...ask("Hi"), model: "nowhere" })),
    value: await caught(client.messages.create({ ...ask("Hi"), temperature: 5 })),
  },
};
console.log(JSON.stringify(found));
