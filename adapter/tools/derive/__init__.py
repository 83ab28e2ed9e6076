"""Derivation of formats that no row of a table describes, from what a chat template writes."""

from __future__ import annotations

from collections.abc import Iterator

from adapter.tools.derive.members import member_formats
from adapter.tools.derive.objects import NAME, object_formats
from adapter.tools.derive.reasoning import ReasoningSample, derive_tags
from adapter.tools.derive.sample import Sample, Samples
from adapter.tools.formats.base import ToolFormat

__all__ = ["NAME", "ReasoningSample", "Sample", "Samples", "derive_calls", "derive_tags"]


def derive_calls(samples: Samples) -> Iterator[ToolFormat]:
    """Yield the formats that may have written `samples`, those with arguments as one JSON object first. Only one that
    reads back what the template writes is right.
    """
    yield from object_formats(samples)
    yield from member_formats(samples)
