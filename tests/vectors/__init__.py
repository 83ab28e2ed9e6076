"""Chat templates, vocabularies and expected parses of llama.cpp and vLLM, read from their source distributions."""
