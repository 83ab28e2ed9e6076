"""Rows of the table, and their format in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, median

import msgspec


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of several runs, in `unit`; the goal is at most `goal`, or at least that with `more`; None for none.

    `beside` has the same figure of other programs, by name; `note` says what else was observed, or how it was measured.
    """

    what: str
    unit: str
    goal: float | None
    values: list[float]
    more: bool = False
    beside: dict[str, list[float]] = {}
    note: str = ""

    @property
    def reached(self) -> bool:
        middle = median(self.values)
        if self.goal is None:
            return False
        return middle >= self.goal if self.more else middle <= self.goal

    def cells(self) -> list[str]:
        ratios = ", ".join(
            f"{name} {_plain(median(values))} ({median(self.values) / median(values):.2f} x)"
            for name, values in self.beside.items()
        )
        spread = f"{_plain(min(self.values))} to {_plain(max(self.values))}" if len(self.values) > 1 else ""
        return [
            f"{self.what}, {self.unit}",
            "none" if self.goal is None else f"{'at least' if self.more else 'at most'} {_plain(self.goal)}",
            f"**{_plain(median(self.values))}**" if self.reached else _plain(median(self.values)),
            _plain(mean(self.values)),
            spread,
            "; ".join(part for part in (ratios, self.note) if part),
        ]


def _plain(value: float) -> str:
    digits = 0 if abs(value) >= 1000 or value == int(value) else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def table(rows: Sequence[Row]) -> str:
    """Return the table in Markdown; figures in bold have reached their goal."""
    head = ["figure", "goal", "median", "mean", "from to", "beside it"]
    lines = [head, ["---"] * len(head), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
