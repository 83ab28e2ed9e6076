"""Tests for the recording at the top of the README: from events to an SVG that GitHub can display."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from tests.demo.__main__ import OUTPUT, pause
from tests.demo.picture import COLUMNS, HOLD, Event, draw

MAX_BYTES = 60_000
SVG = "{http://www.w3.org/2000/svg}"
WORDS = [f"<word{number}> & " for number in range(60)]
EVENTS = [
    Event(0.5, "operator", "$ start\n", "command"),
    *(Event(1 + number / 20, "client", word, "before") for number, word in enumerate(WORDS[:30])),
    Event(2.6, "operator", "$ kill -9 1\n", "kill"),
    *(Event(4 + number / 20, "client", word, "after") for number, word in enumerate(WORDS[30:])),
    Event(6.0, "client", "\n\nthe same\n", "good"),
]


def rows(svg: str) -> list[str]:
    """The text of each row of the terminal."""
    texts = ElementTree.fromstring(svg).iter(f"{SVG}text")
    return ["".join(text.itertext()) for text in texts if text.get("class") != "small"]


def test_all_text_is_there() -> None:
    """Every event is in the picture, in order, in rows that fit."""
    shown = rows(draw(EVENTS, "a & b"))
    assert max(map(len, shown)) <= COLUMNS
    assert shown[:2] == ["$ start", "$ kill -9 1"]
    assert " ".join(shown[2:-1]).split() == "".join(WORDS).split()
    assert shown[-1] == "the same"


def test_long_word() -> None:
    """A word longer than a row is split in the client pane and truncated in the operator pane."""
    word = "x" * (COLUMNS + 5)
    shown = rows(draw([Event(0, "operator", word), Event(0, "client", word)], ""))
    assert shown == ["x" * (COLUMNS - 1) + "…", "x" * COLUMNS, "x" * 5]


def test_times_are_kept() -> None:
    """The animation shows each event at its recorded time, then holds the last frame for HOLD seconds."""
    svg = draw(EVENTS, "")
    length = EVENTS[-1].time + HOLD
    shares = [float(share) for share in re.findall(r"([\d.]+)% { visibility: visible", svg)]
    assert [share * length / 100 for share in shares] == pytest.approx(sorted(event.time for event in EVENTS), abs=0.01)
    assert set(re.findall(r"animation: k\d+ ([\d.]+)s step-end infinite", svg)) == {f"{length:.2f}"}


def test_pause() -> None:
    """The longest pause is between the last piece before the kill and the first after it."""
    assert pause(EVENTS) == pytest.approx(4 - (1 + 29 / 20))


@pytest.mark.parametrize("svg", [draw(EVENTS, "a & b"), OUTPUT.read_text()], ids=["drawn", "committed"])
def test_github_shows_it(svg: str) -> None:
    """The SVG is well-formed, small and free of scripts and external resources."""
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert len(svg.encode()) < MAX_BYTES
    assert not {element.tag for element in root.iter()} & {f"{SVG}script", f"{SVG}image", f"{SVG}foreignObject"}
    assert "href" not in svg
    assert "url(" not in svg


def test_committed_recording() -> None:
    """The committed file shows the kill, the answer before and after it, and the comparison, in 12 to 20 s."""
    svg = OUTPUT.read_text()
    text = "\n".join(rows(svg))
    assert "$ kill -9 " in text
    assert "identical to an undisturbed run: yes" in text
    assert 'class="before ' in svg
    assert 'class="after ' in svg
    (length,) = set(re.findall(r"animation: k\d+ ([\d.]+)s", svg))
    assert 12 <= float(length) <= 20
