"""OpenAI-compatible servers as nodes of the chat lane."""

from subnet.protocols.openai.openai_protocol import OpenAIProtocol as OpenAIProtocol
