"""Values inside tool calls: JSON, Python literals, typed text."""
