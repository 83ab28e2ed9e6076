// Schemas that clients make of Zod types and are not strict: unions, records, optional members, formats and circles.
import { z } from "zod";

const Pet = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("cat"), lives: z.int().optional() }),
  z.object({ kind: z.literal("dog"), name: z.string().nullable() }),
]);
export const Owner = z.object({
  pet: Pet,
  scores: z.record(z.string(), z.number()),
  levels: z.partialRecord(z.enum(["low", "high"]), z.int()).optional(),
  contact: z.union([z.email(), z.url(), z.null()]).default(null),
  born: z.iso.date().optional(),
  code: z.string().regex(/^(?!0)\d{3}$/u).optional(),
  any: z.any().optional(),
});
// LangChain.js itself cannot read a circle.
export const Friend = z.object({
  ...Owner.shape,
  get friends() {
    return z.array(Friend).optional();
  },
});
export const question = "Who owns the pet?";
