"""An OpenAI-compatible gateway in front of a subnet of inference nodes."""
