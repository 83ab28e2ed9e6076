"""Finds members of a request's objects that its types do not have, so that none is dropped silently."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

MAX_UNKNOWN = 64
"""Maximum number of unknown members that are named: more than the response header has room for."""

# Members of the messages that servers and their clients' libraries return, and that say nothing to a model: OpenAI's
# (`annotations`, and `index` of streamed calls), its libraries' (`parsed`), OpenRouter's, Google's and LiteLLM's.
_OF_ANSWERS = frozenset(
    (
        "annotations",
        "extra_content",
        "index",
        "parsed",
        "parsed_arguments",
        "provider_specific_fields",
        "reasoning_details",
        "thinking_blocks",
    )
)
_INDEX = re.compile(r"\[\d+\]")


class _Node(msgspec.Struct, frozen=True):
    """What is known about a value: by its tag, the members of an object and their nodes; and the items of a list.

    `is_left_out`, by the tag, says of an object whether it is left out as a whole.
    """

    tag_field: str | None = None
    members: dict[object, dict[str, _Node | None]] = {}
    is_left_out: dict[object, Callable[[dict[str, Any]], bool]] = {}
    items: _Node | None = None


def unknown_members(given: Mapping[str, Any], kind: type[msgspec.Struct]) -> list[str]:
    """Return the paths of the unknown members within the parameters of `given`, which is valid as `kind`.

    They are those with a value; null, and empty lists and objects, request nothing. Of the paths that differ only in
    indexes, the first is returned; MAX_UNKNOWN in all. An object of which the method `is_left_out` of its Struct says
    so is unknown as a whole.
    """
    found: dict[str, str] = {}
    for name, node in _root(kind).items():
        if node is not None and isinstance(value := given.get(name), list | dict):
            for path in _walk(node, value):
                found.setdefault(_INDEX.sub("[]", name + path), name + path)
                if len(found) >= MAX_UNKNOWN:
                    return list(found.values())
    return list(found.values())


def _walk(node: _Node, value: Any) -> Iterator[str]:
    if isinstance(value, list):
        if (items := node.items) is not None:
            for index, item in enumerate(value):
                if isinstance(item, list | dict):
                    yield from (f"[{index}]{path}" for path in _walk(items, item))
        return
    tag = value.get(node.tag_field) if node.tag_field else None
    members = node.members.get(tag)
    if members is None:
        return
    if (is_left_out := node.is_left_out.get(tag)) is not None and is_left_out(value):
        yield ""
        return
    for name, inner in value.items():
        if name in members:
            if (known := members[name]) is not None and isinstance(inner, list | dict):
                yield from (f".{name}{path}" for path in _walk(known, inner))
        elif name != node.tag_field and name not in _OF_ANSWERS and inner not in (None, [], {}):
            yield f".{name}"


@cache
def _root(kind: type[msgspec.Struct]) -> dict[str, _Node | None]:
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    return _members(described)


def _members(described: inspect.StructType) -> dict[str, _Node | None]:
    return {field.encode_name: _node(field.type) for field in described.fields}


def _node(described: inspect.Type) -> _Node | None:
    """Return the node of a type; None if its values have no members of their own, or any."""
    if isinstance(described, inspect.StructType):
        is_left_out = getattr(described.cls, "is_left_out", None)
        predicates: dict[object, Callable[[dict[str, Any]], bool]] = {}
        if is_left_out is not None:
            predicates[described.tag] = is_left_out
        return _Node(described.tag_field, {described.tag: _members(described)}, predicates)
    if isinstance(described, inspect.ListType):
        items = _node(described.item_type)
        return None if items is None else _Node(items=items)
    if not isinstance(described, inspect.UnionType):
        return None
    nodes = [node for one in described.types if (node := _node(one)) is not None]
    if not nodes:
        return None
    return _Node(
        next((node.tag_field for node in nodes if node.tag_field), None),
        {tag: members for node in nodes for tag, members in node.members.items()},
        {tag: predicate for node in nodes for tag, predicate in node.is_left_out.items()},
        next((node.items for node in nodes if node.items is not None), None),
    )
