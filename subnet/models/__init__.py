"""Model files: GGUF and Hugging Face formats, model references, and the model cards and tokenizers made from them."""
