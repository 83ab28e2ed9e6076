"""Engine that forwards token ids to llama.cpp's server, llama-server."""

from __future__ import annotations

from subnet.engines.llama_server.llama_server_engine import LlamaServerEngine

__all__ = ["LlamaServerEngine"]
