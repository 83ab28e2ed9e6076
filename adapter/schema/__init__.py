"""OpenAI's objects, as Structs: what is read, and what is written."""
