"""Any OpenAI-compatible server as a node."""

from subnet.protocols.openai.protocol import OpenAIProtocol as OpenAIProtocol
