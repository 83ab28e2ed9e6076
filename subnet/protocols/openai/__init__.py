"""OpenAI-compatible servers as nodes of the chat lane."""

from subnet.protocols.openai.protocol import OpenAIProtocol as OpenAIProtocol
