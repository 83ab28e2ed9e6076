"""Stop strings: found however the text is cut, and never shown in part."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from adapter.decode import StopScanner

TEXT = st.text("abc\n", max_size=30)
STOPS = st.lists(st.text("abc\n", min_size=1, max_size=5), max_size=4)
CUTS = st.lists(st.integers(0, 30), max_size=8)


def pieces(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


def whole(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The same by brute force: the shortest beginning of the text that ends with a stop string."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            stop = max(found, key=len)
            return text[: end - len(stop)], stop
    return text, None


@given(TEXT, STOPS, CUTS)
def test_any_cut_gives_the_same(text: str, stops: list[str], cuts: list[int]) -> None:
    """The pieces of a text give what the whole of it gives."""
    scanner = StopScanner(stops)
    shown = "".join(map(scanner.decode, pieces(text, cuts))) + scanner.flush()
    assert (shown, scanner.stopped) == whole(text, stops)


@given(TEXT, st.text("abc\n", min_size=1, max_size=5), CUTS)
def test_one_stop_string_is_found_where_str_finds_it(text: str, stop: str, cuts: list[int]) -> None:
    """With one stop string the text ends where `str.find` says, or nowhere."""
    scanner = StopScanner([stop])
    shown = "".join(map(scanner.decode, pieces(text, cuts))) + scanner.flush()
    assert shown == text.partition(stop)[0]
    assert (scanner.stopped is None) == (stop not in text)


@given(TEXT, STOPS, CUTS)
def test_nothing_is_shown_that_may_be_part_of_a_stop_string(text: str, stops: list[str], cuts: list[int]) -> None:
    """After every piece, what was shown is followed by at least what could still become a stop string, and no
    more is held back than that."""
    scanner = StopScanner(stops)
    shown = seen = ""
    for piece in pieces(text, cuts):
        seen += piece
        shown += scanner.decode(piece)
        if scanner.stopped is not None:
            break
        held = seen[len(shown) :]
        assert shown + held == seen
        assert held == "" or any(stop.startswith(held) for stop in stops)
        starts = [cut for cut in range(len(shown)) if any(stop.startswith(seen[cut:]) for stop in stops)]
        assert starts == []


@given(TEXT, STOPS, CUTS)
def test_the_stop_string_can_be_included(text: str, stops: list[str], cuts: list[int]) -> None:
    """Then the text ends with it."""
    scanner = StopScanner(stops, include=True)
    shown = "".join(map(scanner.decode, pieces(text, cuts))) + scanner.flush()
    before, stop = whole(text, stops)
    assert (shown, scanner.stopped) == (before + (stop or ""), stop)


def test_the_stop_string_that_is_complete_first_wins() -> None:
    """Also against one that started earlier, and whatever their order."""
    scanner = StopScanner(["abcde", "c"])
    assert scanner.decode("xabcde") == "xab"
    assert scanner.stopped == "c"


def test_of_two_that_end_together_the_longest_wins() -> None:
    """So that no part of either is shown."""
    scanner = StopScanner(["d", "bcd"])
    assert scanner.decode("abcd") == "a"
    assert scanner.stopped == "bcd"


def test_nothing_follows_a_stop_string() -> None:
    """Neither the rest of its piece, nor later pieces, nor the flush."""
    scanner = StopScanner(["stop"])
    assert scanner.decode("go stop here") == "go "
    assert scanner.decode("more") == ""
    assert scanner.flush() == ""


def test_without_stop_strings_all_text_passes() -> None:
    """Empty ones do not count."""
    scanner = StopScanner(["", ""])
    assert scanner.decode("text") == "text"
    assert scanner.stopped is None
