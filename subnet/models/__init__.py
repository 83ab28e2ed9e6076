"""Models as files: GGUF metadata, references to models, and the card and tokenizer that a node hands out."""
