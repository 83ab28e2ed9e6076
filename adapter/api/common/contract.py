"""Holds requests to the table of parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from adapter.api.common.parameter_table import BOTH, TABLE, Endpoint, Parameter
from adapter.errors import BadRequest

MAX_PARAMETERS = 256
"""Parameters of one request."""


class Contract:
    """What becomes of the parameters of one endpoint: those `honoured`, and others in `rows`."""

    def __init__(self, honoured: Iterable[str], rows: Sequence[Parameter] = ()) -> None:
        self._known = frozenset(honoured) | {row.name for row in rows}
        self._rejected = {row.name: row for row in rows if row.fate == "rejected"}

    def check(self, given: Mapping[str, object], *, strict: bool = False) -> tuple[str, ...]:
        """The names that nobody knows. Raises BadRequest for what is rejected, for too many parameters, and with
        `strict` for one that nobody knows.
        """
        if len(given) > MAX_PARAMETERS:
            name = list(given)[MAX_PARAMETERS][:64]
            message = f"Too many parameters: expected at most {MAX_PARAMETERS}, but got {len(given)}."
            raise BadRequest(f"{message} '{name}' is one too many.", param=name, code="invalid_value")
        if not self._rejected.keys().isdisjoint(given):
            self._refuse(given)
        unknown = tuple(sorted(name for name in given if name not in self._known))
        if unknown and strict:
            name = unknown[0][:64]
            raise BadRequest(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
        return unknown

    def _refuse(self, given: Mapping[str, object]) -> None:
        for name in self._rejected.keys() & given.keys():
            row = self._rejected[name]
            if not _asks_for_nothing(given[name], row.neutral):
                raise _unsupported(name, row.neutral, row.note)


def contract(endpoint: Endpoint) -> Contract:
    rows = [row for row in TABLE if endpoint in row.on]
    return Contract([row.name for row in rows if row.fate == "honoured"], rows)


def table() -> str:
    """The contract as a Markdown table."""
    rows = ["| parameter | chat completions | completions | |", "|---|---|---|---|"]
    for row in TABLE:
        cells = [row.fate if endpoint in row.on else "" for endpoint in BOTH]
        taken = f"; only {_either(row.neutral, '`')} is accepted" if row.neutral else ""
        rows.append(f"| `{row.name}` | {' | '.join(cells)} | {row.note}{taken} |")
    return "\n".join(rows) + "\n"


def _asks_for_nothing(value: object, neutral: tuple[object, ...]) -> bool:
    return value is None or any(_same(value, one) for one in neutral)


def _same(value: object, neutral: object) -> bool:
    return isinstance(value, bool) == isinstance(neutral, bool) and value == neutral


def _unsupported(name: str, neutral: tuple[object, ...], why: str = "") -> BadRequest:
    reason = " (" + why.replace("`", "'") + ")" if why else ""
    exceptions = f" Only {_either(neutral)} is accepted." if neutral else ""
    message = f"Unsupported parameter: '{name}'{reason}.{exceptions}"
    return BadRequest(message, param=name, code="unsupported_parameter")


def _either(values: tuple[object, ...], quote: str = "") -> str:
    return " or ".join(f"{quote}{msgspec.json.encode(value).decode()}{quote}" for value in values)
