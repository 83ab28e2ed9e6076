"""Sampling of tokens from logits: truncation, penalties, seeds, grammars and logprobs."""
