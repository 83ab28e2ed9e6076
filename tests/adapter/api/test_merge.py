"""Members whose parts arrive in several deltas, put together for a client that does not stream."""

from __future__ import annotations

from typing import Any

import pytest

from adapter.api.chat.merge import MergedObject


def merged(*parts: dict[str, Any]) -> dict[str, Any]:
    whole = MergedObject()
    for part in parts:
        whole.add(part)
    return whole.build()


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ([], {}),
        ([{"a": "x"}, {"b": "y"}, {"a": "z"}], {"a": "xz", "b": "y"}),
        ([{"id": "x", "type": "t", "object": "o"}] * 2, {"id": "x", "type": "t", "object": "o"}),
        ([{"id": {"a": "x"}}, {"id": {"a": "y"}}], {"id": {"a": "xy"}}),
        ([{"a": {"b": "x", "id": "1"}}, {"a": {"b": "y", "id": "2"}}], {"a": {"b": "xy", "id": "2"}}),
        ([{"a": 1}, {"a": 2}], {"a": 2}),
        ([{"a": "x"}, {"a": None}, {"a": "y"}], {"a": "y"}),
        ([{"a": "x"}, {"a": ["y"]}, {"a": {"b": 1}}], {"a": {"b": 1}}),
        ([{"a": [1, {"b": 1}]}, {"a": [1, {"b": 2}]}], {"a": [1, {"b": 1}, 1, {"b": 2}]}),
    ],
)
def test_parts(parts: list[dict[str, Any]], whole: dict[str, Any]) -> None:
    """Texts and lists continue, objects are merged, and of an id or any other value the last one counts."""
    assert merged(*parts) == whole


def test_items_with_an_index() -> None:
    """Items with the same index are one if they are in different parts, wherever they are in the list."""
    first, second, third = [{"index": 7, "t": "a"}, "x", {"index": 2, "t": "b"}], [{"index": 2, "t": "c"}], ["y"]
    whole = [{"index": 7, "t": "a"}, "x", {"index": 2, "t": "bc"}, "y"]
    assert merged({"a": first}, {"a": second}, {"a": third}) == {"a": whole}
    twice = [{"index": 0, "t": "a"}, {"index": 0, "t": "b"}]
    assert merged({"a": twice}) == {"a": twice}
    assert merged({"a": twice}, {"a": [{"index": 0, "t": "c"}]}) == {"a": [twice[0], {"index": 0, "t": "bc"}]}
    flags = [{"index": True}, {"index": True}]
    assert merged({"a": flags[:1]}, {"a": flags[1:]}) == {"a": flags}


def test_parts_stay_as_they_are() -> None:
    """The parts are not modified, and the object may be built at any time."""
    part = {"a": {"b": "x"}, "c": [{"index": 0, "d": [1]}]}
    whole = MergedObject()
    whole.add(part)
    assert whole.build() == part
    whole.add(part)
    assert whole.build() == {"a": {"b": "xx"}, "c": [{"index": 0, "d": [1, 1]}]}
    assert part == {"a": {"b": "x"}, "c": [{"index": 0, "d": [1]}]}


def test_very_many_parts() -> None:
    """Each part costs the same, however many there were: copies of all earlier ones would take minutes."""
    count = 50_000
    parts = ({"audio": {"data": "x" * 1000}, "a": [{"index": number, "t": "x"}]} for number in range(count))
    whole = merged(*parts)
    assert len(whole["audio"]["data"]) == 1000 * count
    assert len(whole["a"]) == count
