"""vLLM, by token ids."""

from __future__ import annotations

from subnet.engines.vllm.vllm_engine import VllmEngine

__all__ = ["VllmEngine"]
