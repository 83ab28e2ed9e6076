"""Text completions: answers to prompts that are no conversation."""
