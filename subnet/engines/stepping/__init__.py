"""Base for engines that advance all their choices together, one step at a time, in a separate thread."""

from __future__ import annotations

from subnet.engines.stepping.stepping_context import Context, Row
from subnet.engines.stepping.stepping_engine import SteppingEngine

__all__ = ["Context", "Row", "SteppingEngine"]
