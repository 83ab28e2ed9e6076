// What LangChain.js makes of a scripted model's answers, as one JSON object: node langchain.mjs BASE_URL
import { HumanMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI } from "@langchain/openai";
import { z } from "zod";
import { Owner, question } from "./schemas.mjs";

const model = new ChatOpenAI({
  model: "mock",
  apiKey: "any",
  temperature: 0,
  maxRetries: 0,
  configuration: { baseURL: process.argv[2] },
});
const save = tool((owner) => `saved ${owner.pet.kind}`, { name: "save", description: "Save.", schema: Owner });

async function round(choice) {
  const bound = model.bindTools([save], choice && { tool_choice: choice });
  const asked = await bound.invoke([new HumanMessage(question)]);
  const result = await save.invoke(asked.tool_calls[0]);
  const last = await model.bindTools([save]).invoke([new HumanMessage(question), asked, result]);
  return { input: asked.tool_calls[0].args, output: result.content, text: last.text };
}

async function streamed() {
  let added;
  let pieces = 0;
  for await (const chunk of await model.bindTools([save]).stream(question)) {
    added = added === undefined ? chunk : added.concat(chunk);
    pieces += 1;
  }
  return { pieces, input: added.tool_calls[0].args };
}

// Given the Zod type, LangChain.js would ask for a strict JSON schema.
const structured = (schema, method) => model.withStructuredOutput(schema, { method, name: "save" }).invoke(question);
const found = {
  rounds: [await round(), await round("any"), await round("save")],
  streamed: await streamed(),
  calling: await structured(Owner, "functionCalling"),
  schema: await structured(z.toJSONSchema(Owner), "jsonSchema"),
};
console.log(JSON.stringify(found));
