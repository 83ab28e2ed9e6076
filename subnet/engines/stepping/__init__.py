"""Engines that take all their choices forward together, a step at a time, in a thread of their own."""

from __future__ import annotations

from subnet.engines.stepping.context import Context, Row
from subnet.engines.stepping.stepping_engine import SteppedEngine

__all__ = ["Context", "Row", "SteppedEngine"]
