"""Animated SVG of a terminal recording. Uses CSS only; shows the last frame where animations are off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Literal, NamedTuple
from xml.sax.saxutils import escape

Style = Literal["plain", "dim", "command", "kill", "before", "after", "bad", "good"]
Pane = Literal["operator", "client"]

COLUMNS = 80
HOLD = 4.5
"""Seconds the last frame is shown before the recording restarts."""
_WIDTH, _ROW, _LEFT, _BAR = 800, 20, 24, 38
_BUTTONS = ((24, "#ff5f56"), (44, "#ffbd2e"), (64, "#27c93f"))
_LEGEND = 'received <tspan class="before">before the kill</tspan>, <tspan class="after">after it</tspan>'
_STYLE = """
text { font: 15.6px ui-monospace, SFMono-Regular, Menlo, 'DejaVu Sans Mono', 'Liberation Mono', monospace;
  fill: #c9d1d9; white-space: pre }
.small { font-size: 13px; fill: #8b949e }
.dim { fill: #8b949e }
.command { fill: #f0f6fc }
.kill { fill: #ff7b72; font-weight: 700 }
.bad { fill: #ff7b72 }
.good, .after { fill: #56d364 }
.before { fill: #79c0ff }
.flash { fill: #f85149; fill-opacity: .22 }
@media (prefers-reduced-motion: reduce) { * { animation: none !important } }
"""


class Event(NamedTuple):
    """Text that appeared in a pane; `time` is in seconds since the start."""

    time: float
    pane: Pane
    text: str
    style: Style = "plain"


class Glyph(NamedTuple):
    """One character of an event."""

    text: str
    time: float
    style: Style


def draw(events: Sequence[Event], title: str) -> str:
    """Return the recording as SVG. It plays in real time, holds for HOLD seconds and loops."""
    length = max(event.time for event in events) + HOLD
    operator = [_clipped(line) for line in _lines(_glyphs(events, "operator"))]
    client = [row for line in _lines(_glyphs(events, "client")) for row in _wrapped(line)]
    middle = _BAR + 12 + len(operator) * _ROW + 12
    height = middle + 30 + len(client) * _ROW + 14
    times = sorted({event.time for event in events})
    size = f'width="{_WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" {size} role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}{''.join(_keyframes(times, length))}</style>",
        f'<rect {size} rx="10" fill="#0d1117"/>',
        f'<path d="M0 {_BAR}V10a10 10 0 0 1 10-10H{_WIDTH - 10}a10 10 0 0 1 10 10V{_BAR}z" fill="#161b22"/>',
        *(f'<circle cx="{x}" cy="19" r="6" fill="{fill}"/>' for x, fill in _BUTTONS),
        f'<text class="small" x="{_WIDTH // 2}" y="24" text-anchor="middle">{escape(title)}</text>',
        f'<rect y="{middle}" width="{_WIDTH}" height="24" fill="#161b22"/>',
        f'<text class="small" x="{_LEFT}" y="{middle + 17}">client: OpenAI SDK</text>',
        f'<text class="small" x="{_WIDTH - _LEFT}" y="{middle + 17}" text-anchor="end">{_LEGEND}</text>',
        *_rows(operator, _BAR + 12, times),
        *_rows(client, middle + 30, times),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _glyphs(events: Sequence[Event], pane: Pane) -> list[Glyph]:
    return [Glyph(letter, event.time, event.style) for event in events if event.pane == pane for letter in event.text]


def _lines(glyphs: Sequence[Glyph]) -> Iterator[list[Glyph]]:
    line: list[Glyph] = []
    for glyph in glyphs:
        if glyph.text == "\n":
            yield line
            line = []
        else:
            line.append(glyph)
    if line:
        yield line


def _clipped(line: list[Glyph]) -> list[Glyph]:
    """Truncate a line at the edge of the pane, so that tables keep their shape."""
    return line if len(line) <= COLUMNS else [*line[: COLUMNS - 1], line[COLUMNS - 1]._replace(text="…")]


def _wrapped(line: list[Glyph]) -> Iterator[list[Glyph]]:
    """Wrap a line between words."""
    while len(line) > COLUMNS:
        spaces = [place for place in range(1, COLUMNS + 1) if line[place].text == " "]
        end = spaces[-1] if spaces else COLUMNS
        yield line[:end]
        line = line[end + bool(spaces) :]
    yield line


def _rows(rows: Sequence[list[Glyph]], top: int, times: Sequence[float]) -> Iterator[str]:
    """Yield one text element per row. Spans flow, so nothing overlaps whatever the font width."""
    for number, row in enumerate(rows):
        y = top + number * _ROW
        if row and row[0].style == "kill":
            moment = _name(row[0].time, times)
            yield f'<rect class="flash {moment}" x="10" y="{y}" width="{_WIDTH - 20}" height="{_ROW}"/>'
        spans = [
            f'<tspan class="{style} {_name(time, times)}">{escape("".join(glyph.text for glyph in glyphs))}</tspan>'
            for (time, style), glyphs in groupby(row, key=lambda glyph: (glyph.time, glyph.style))
        ]
        if spans:
            yield f'<text x="{_LEFT}" y="{y + 15}">{"".join(spans)}</text>'


def _name(time: float, times: Sequence[float]) -> str:
    return f"t{times.index(time)}"


def _keyframes(times: Sequence[float], length: float) -> Iterator[str]:
    """Yield one animation per event time; it hides text until then. Without animations all text is visible."""
    for number, time in enumerate(times):
        share = f"{100 * time / length:.2f}%"
        yield f"@keyframes k{number} {{ 0% {{ visibility: hidden }} {share} {{ visibility: visible }} }}\n"
        yield f".t{number} {{ animation: k{number} {length:.2f}s step-end infinite }}\n"
