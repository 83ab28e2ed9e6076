"""POST /v1/messages: Anthropic's dialect. Its requests become those of conversation/, its answers come from events."""
