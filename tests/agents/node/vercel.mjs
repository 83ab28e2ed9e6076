// What Vercel's AI SDK makes of a scripted model's answers, with two of its providers, as one JSON object:
// node vercel.mjs BASE_URL
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { Friend, question } from "./schemas.mjs";

const settings = { baseURL: process.argv[2], apiKey: "any" };
const compatible = { name: "gateway", ...settings, includeUsage: true, supportsStructuredOutputs: true };
const loose = { openai: { strictJsonSchema: false }, gateway: { strictJsonSchema: false } };
const models = {
  openai: createOpenAI(settings).chat("mock"),
  compatible: createOpenAICompatible(compatible)("mock"),
};
const saving = { save: tool({ description: "Save.", inputSchema: Friend, execute: ({ pet }) => `saved ${pet.kind}` }) };

async function told(result) {
  const steps = await result.steps;
  const [{ input, output }] = steps.flatMap((step) => step.toolResults);
  return { text: await result.text, input, output, tokens: (await result.totalUsage).totalTokens };
}

async function tried(model) {
  const common = { model, prompt: question, maxRetries: 0, providerOptions: loose };
  const run = { ...common, tools: saving, stopWhen: stepCountIs(3) };
  const forced = { ...run, prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber ? "auto" : "required" }) };
  return {
    whole: await told(await generateText(run)),
    streamed: await told(streamText(run)),
    forced: await told(await generateText(forced)),
    object: (await generateText({ ...common, output: Output.object({ schema: Friend }) })).output,
    streamedObject: await streamText({ ...common, output: Output.object({ schema: Friend }) }).output,
  };
}

const found = {};
for (const [name, model] of Object.entries(models)) found[name] = await tried(model);
console.log(JSON.stringify(found));
