"""Reading an answer: text to content, reasoning and tool calls, however the stream cuts it."""
