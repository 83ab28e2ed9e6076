"""Engine for models in Hugging Face format, run in this process with the packages transformers and torch."""

from __future__ import annotations

from subnet.engines.transformers.transformers_engine import TransformersEngine

__all__ = ["TransformersEngine"]
