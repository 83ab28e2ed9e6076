"""Models in Hugging Face's form in this process, by the packages transformers and torch."""

from __future__ import annotations

from subnet.engines.transformers.transformers_engine import TransformersEngine

__all__ = ["TransformersEngine"]
