"""llama.cpp's own server, by token ids."""

from __future__ import annotations

from subnet.engines.llama_server.llama_server_engine import LlamaServerEngine

__all__ = ["LlamaServerEngine"]
