"""Drawing tokens from logits, whoever made these: truncation, penalties, seeds, grammars, logprobs."""
