// What Vercel's AI SDK makes of a gateway's answers, as one JSON object: node ai.mjs BASE_URL
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateObject, generateText, hasToolCall, streamObject, streamText, tool } from "ai";
import { z } from "zod";

const provider = createOpenAICompatible({
  name: "gateway",
  baseURL: process.argv[2],
  apiKey: "any",
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const common = {
  model: provider("SmolLM2-135M-Instruct"),
  temperature: 0,
  seed: 5,
  maxOutputTokens: 40,
  maxRetries: 0,
};
const colours = { ...common, prompt: "Name three colours." };
const Cat = z.object({ name: z.string().max(12), age: z.int().min(0).max(30) });
const cat = { ...common, schema: Cat, prompt: "Describe a cat." };
const weather = tool({
  inputSchema: z.object({ city: z.string().max(12), days: z.int().min(1).max(7) }),
  execute: ({ city }) => `sunny in ${city}`,
});
const forced = {
  ...common,
  prompt: "What is the weather in Paris?",
  tools: { weather },
  toolChoice: { type: "tool", toolName: "weather" },
  stopWhen: hasToolCall("weather"),
};

const told = async ({ text, finishReason, usage }) => {
  const { inputTokens, outputTokens, totalTokens } = await usage;
  return { text: await text, finishReason: await finishReason, tokens: [inputTokens, outputTokens, totalTokens] };
};

async function collected(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

async function streamed() {
  const result = streamText(colours);
  return { pieces: await collected(result.textStream), ...(await told(result)) };
}

async function streamedCall() {
  const result = streamText(forced);
  const parts = await collected(result.fullStream);
  const fragments = parts.filter((part) => part.type === "tool-input-delta").map((part) => part.delta);
  const results = (await result.toolResults).map(({ input, output }) => ({ input, output }));
  return { fragments, results, finishReason: await result.finishReason };
}

async function streamedObject() {
  const result = streamObject(cat);
  const partial = await collected(result.partialObjectStream);
  return { partial, object: await result.object };
}

async function called() {
  const { toolResults, finishReason } = await generateText(forced);
  return { results: toolResults.map(({ input, output }) => ({ input, output })), finishReason };
}

async function refused(more) {
  try {
    await generateText({ ...colours, ...more });
    return null;
  } catch (error) {
    const { statusCode, isRetryable, data } = error;
    return { typed: APICallError.isInstance(error), statusCode, isRetryable, ...data?.error };
  }
}

const found = {
  whole: await told(await generateText(colours)),
  streamed: await streamed(),
  called: await called(),
  streamedCall: await streamedCall(),
  object: (await generateObject(cat)).object,
  streamedObject: await streamedObject(),
  errors: {
    model: await refused({ model: provider("gpt-nowhere") }),
    range: await refused({ temperature: 3 }),
  },
};
console.log(JSON.stringify(found));
