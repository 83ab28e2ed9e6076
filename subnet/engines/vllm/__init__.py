"""vLLM, by token ids."""

from __future__ import annotations

from subnet.engines.vllm.engine import VllmEngine

__all__ = ["VllmEngine"]
