"""Mapping of sampling parameters to those of an engine's server: one table per engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from subnet.generation import Sampling


def _identity(value: Any) -> Any:
    return value


class Parameter(NamedTuple):
    """Mapping of one field of Sampling to a parameter of the server, and the conversion of its value."""

    field: str
    param: str
    convert: Callable[[Any], Any] = _identity


def sampling_params(table: Iterable[Parameter], sampling: Sampling) -> dict[str, Any]:
    """Return the server's parameters for `sampling`. Defaults are included, because the server's may differ."""
    return {parameter.param: parameter.convert(getattr(sampling, parameter.field)) for parameter in table}


def nonzero(top_p: float) -> float:
    """Replace a top_p of 0, which some servers reject, by a value so small that it leaves one token."""
    return max(top_p, 1e-6)
