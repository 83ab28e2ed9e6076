"""Engine that forwards token ids to an SGLang server."""

from __future__ import annotations

from subnet.engines.sglang.sglang_engine import SglangEngine

__all__ = ["SglangEngine"]
