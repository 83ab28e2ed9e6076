"""Detection of stop strings."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from subnet.stop_scanner import StopScanner

TEXT = st.text("abc\n", max_size=30)
STOPS = st.lists(st.text("abc\n", min_size=1, max_size=5), max_size=4)
CUTS = st.lists(st.integers(0, 30), max_size=8)


def pieces(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


def whole(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Find the shortest prefix of the text that ends with a stop string, by brute force."""
    for end in range(len(text) + 1):
        matches = [stop for stop in stops if text[:end].endswith(stop)]
        if matches:
            stop = max(matches, key=len)
            return text[: end - len(stop)], stop
    return text, None


@given(TEXT, STOPS, CUTS)
def test_any_pieces_give_the_same(text: str, stops: list[str], cuts: list[int]) -> None:
    """A text in any pieces gives the same result as in one piece."""
    scanner = StopScanner(stops)
    released = "".join(map(scanner.decode, pieces(text, cuts))) + scanner.flush()
    assert (released, scanner.stopped) == whole(text, stops)


@given(TEXT, st.text("abc\n", min_size=1, max_size=5), CUTS)
def test_one_stop_string(text: str, stop: str, cuts: list[int]) -> None:
    """With one stop string the text ends where `str.partition` splits it."""
    scanner = StopScanner([stop])
    released = "".join(map(scanner.decode, pieces(text, cuts))) + scanner.flush()
    assert released == text.partition(stop)[0]
    assert (scanner.stopped is None) == (stop not in text)


@given(TEXT, STOPS, CUTS)
def test_what_is_held_back(text: str, stops: list[str], cuts: list[int]) -> None:
    """After each piece exactly the text that can still become a stop string is held back."""
    scanner = StopScanner(stops)
    released = seen = ""
    for piece in pieces(text, cuts):
        seen += piece
        released += scanner.decode(piece)
        if scanner.stopped is not None:
            break
        held = seen[len(released) :]
        assert released + held == seen
        assert held == "" or any(stop.startswith(held) for stop in stops)
        starts = [cut for cut in range(len(released)) if any(stop.startswith(seen[cut:]) for stop in stops)]
        assert starts == []


@given(TEXT, STOPS, CUTS)
def test_the_stop_string_can_be_included(text: str, stops: list[str], cuts: list[int]) -> None:
    """With `include` the text ends with the stop string."""
    scanner = StopScanner(stops, include=True)
    released = "".join(map(scanner.decode, pieces(text, cuts))) + scanner.flush()
    before, stop = whole(text, stops)
    assert (released, scanner.stopped) == (before + (stop or ""), stop)


def test_the_first_complete_stop_string_wins() -> None:
    """The stop string that is complete first wins, even if another one started earlier."""
    scanner = StopScanner(["abcde", "c"])
    assert scanner.decode("xabcde") == "xab"
    assert scanner.stopped == "c"


def test_the_longest_of_two_that_end_together_wins() -> None:
    """Of two stop strings that end at the same character the longest wins."""
    scanner = StopScanner(["d", "bcd"])
    assert scanner.decode("abcd") == "a"
    assert scanner.stopped == "bcd"


def test_nothing_follows_a_stop_string() -> None:
    """Nothing is returned after a stop string: not the rest of its piece, later pieces or the flush."""
    scanner = StopScanner(["stop"])
    assert scanner.decode("go stop here") == "go "
    assert scanner.decode("more") == ""
    assert scanner.flush() == ""


def test_without_stop_strings_all_text_passes() -> None:
    """Empty stop strings are ignored."""
    scanner = StopScanner(["", ""])
    assert scanner.decode("text") == "text"
    assert scanner.stopped is None
