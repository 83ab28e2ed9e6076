"""Checks the parameters of requests against the parameter table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from adapter.api.common.parameter_table import ALL, TABLE, Endpoint, Parameter
from adapter.api.common.validation_errors import validation_error
from adapter.errors import BadRequest

_MAX_PATH = 128

MAX_PARAMETERS = 256
"""Maximum number of parameters of a request."""


class Contract:
    """The known parameters of one endpoint: those in `honoured`, and those in `rows`, some of which are rejected."""

    def __init__(self, honoured: Iterable[str], rows: Sequence[Parameter] = ()) -> None:
        self._known = frozenset(honoured) | {row.name for row in rows}
        # Of an older form, only what requests nothing remains once it was converted.
        self._rejected = {row.name: row for row in rows if row.handling == "rejected" or row.neutral}
        self._no_effect = {row.name: row.type for row in rows if row.type is not None}

    def check(self, given: Mapping[str, object], *, strict: bool = False) -> tuple[str, ...]:
        """Return the names of unknown parameters, sorted.

        Raises BadRequest for a rejected parameter, for too many parameters and, if `strict`, for an unknown one.
        """
        if len(given) > MAX_PARAMETERS:
            name = list(given)[MAX_PARAMETERS][:64]
            message = f"Too many parameters: expected at most {MAX_PARAMETERS}, but got {len(given)}."
            raise BadRequest(f"{message} '{name}' is one too many.", param=name, code="invalid_value")
        if not self._rejected.keys().isdisjoint(given):
            self._check_rejected(given)
        if not self._no_effect.keys().isdisjoint(given):
            self._check_types(given)
        unknown = tuple(sorted(given.keys() - self._known))
        if unknown and strict:
            raise unknown_parameter(unknown[0])
        return unknown

    def _check_types(self, given: Mapping[str, object]) -> None:
        for name in self._no_effect.keys() & given.keys():
            try:
                msgspec.convert(given[name], self._no_effect[name] | None)
            except msgspec.ValidationError as error:
                raise validation_error(f"{error} - at `$.{name}`", given, msgspec.Struct) from error

    def _check_rejected(self, given: Mapping[str, object]) -> None:
        for name in self._rejected.keys() & given.keys():
            row = self._rejected[name]
            if not _is_neutral(given[name], row.neutral):
                raise _unsupported_parameter(name, row.neutral, row.note)


def unknown_parameter(path: str) -> BadRequest:
    """Return the error for a parameter, or a member of one, that is not known."""
    path = path[:_MAX_PATH]
    return BadRequest(f"Unknown parameter: '{path}'.", param=path, code="unknown_parameter")


def contract(endpoint: Endpoint) -> Contract:
    """Return the contract of an endpoint that is in the parameter table."""
    rows = [row for row in TABLE if endpoint in row.endpoints]
    return Contract([row.name for row in rows if row.handling == "honoured"], rows)


def table() -> str:
    """Return the parameter table as Markdown."""
    rows = ["| parameter | chat completions | completions | messages | |", "|---|---|---|---|---|"]
    for row in TABLE:
        cells = [row.handling if endpoint in row.endpoints else "" for endpoint in ALL]
        is_limited = row.neutral and row.handling == "rejected"
        accepted = f"; only {_join_with_or(row.neutral, '`')} is accepted" if is_limited else ""
        rows.append(f"| `{row.name}` | {' | '.join(cells)} | {row.note}{accepted} |")
    return "\n".join(rows) + "\n"


def _is_neutral(value: object, neutral: tuple[object, ...]) -> bool:
    return value is None or any(_is_equal(value, one) for one in neutral)


def _is_equal(value: object, neutral: object) -> bool:
    return isinstance(value, bool) == isinstance(neutral, bool) and value == neutral


def _unsupported_parameter(name: str, neutral: tuple[object, ...], why: str = "") -> BadRequest:
    reason = " (" + why.replace("`", "'") + ")" if why else ""
    exceptions = f" Only {_join_with_or(neutral)} is accepted." if neutral else ""
    message = f"Unsupported parameter: '{name}'{reason}.{exceptions}"
    return BadRequest(message, param=name, code="unsupported_parameter")


def _join_with_or(values: tuple[object, ...], quote: str = "") -> str:
    return " or ".join(f"{quote}{msgspec.json.encode(value).decode()}{quote}" for value in values)
