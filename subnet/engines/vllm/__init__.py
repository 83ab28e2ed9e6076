"""Engine that forwards token ids to a vLLM server."""

from __future__ import annotations

from subnet.engines.vllm.vllm_engine import VllmEngine

__all__ = ["VllmEngine"]
