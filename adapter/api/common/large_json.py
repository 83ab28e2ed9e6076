"""JSON of large responses, encoded in parts: other threads wait while msgspec encodes one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import msgspec
from msgspec import UNSET, Struct

from subnet.tensors import TokenIds

# Longest list that is encoded as one part, and number of items of each part of a longer one.
_MAX_ITEMS = 64
# Of numbers and texts.
_MAX_SCALARS = 4096
# Size of the blocks in bytes.
_BLOCK = 256 * 1024

_encode = msgspec.json.encode


# Usual size of a choice without its text, of one part of a text, of a token id and of a token's logprob, in bytes.
_CHOICE, _TEXT_PART, _TOKEN_ID, _LOGPROB = 128, 8, 8, 96


class _LongList(NamedTuple):
    """List of `size` items, of which `items(start, stop)` returns a part."""

    size: int
    items: Callable[[int, int], list[Any]]


def long_list(size: int, items: Callable[[int, int], list[Any]]) -> list[Any]:
    """Return what `encode_in_blocks` encodes as a list of `size` items, of which `items(start, stop)` returns a part;
    to be used as a member of a Struct or a dict.

    The whole list is never in memory: creating, looking through and freeing millions of objects takes long.
    """
    return cast(list[Any], _LongList(size, items))


def token_list(tokens: TokenIds) -> list[int]:
    """Return the `long_list` of token ids."""
    return long_list(len(tokens), lambda start, stop: tokens[start:stop].tolist())


def size_of_choice(text_parts: int, *, ids: int = 0, logprobs: int = 0, width: int = 0) -> int:
    """Return the approximate size in bytes of the JSON of a choice whose text arrived in parts, with a number of token
    ids, and of logprobs with `width` alternatives each.
    """
    return _CHOICE + text_parts * _TEXT_PART + ids * _TOKEN_ID + logprobs * _LOGPROB * (1 + width)


def encode_in_blocks(value: object) -> list[bytes]:
    """Return the JSON of `value` in blocks, the same as msgspec's. It consists of Structs, dicts, lists, scalars, and
    results of `long_list`. Structs have no tags, and no names other than those of their fields.
    """
    blocks, parts, size = list[bytes](), list[bytes](), 0
    for part in _parts(value):
        # A long text is one part.
        for start in range(0, len(part), _BLOCK):
            parts.append(part[start : start + _BLOCK])
            size += len(parts[-1])
            if size >= _BLOCK:
                blocks.append(b"".join(parts))
                parts, size = [], 0
    return [*blocks, b"".join(parts)]


def _parts(value: object) -> Iterator[bytes]:
    if isinstance(value, _LongList):
        yield from _list_parts(value.size, value.items)
    elif not _is_large(value):
        yield _encode(value)
    elif isinstance(value, Struct):
        fields = {name: getattr(value, name) for name in value.__struct_fields__}
        yield from _object_parts({name: item for name, item in fields.items() if item is not UNSET})
    elif isinstance(value, dict):
        yield from _object_parts(value)
    elif isinstance(value, list):
        yield from _list_parts(len(value), lambda start, stop: value[start:stop])


def _object_parts(members: Mapping[str, object]) -> Iterator[bytes]:
    start = b"{"
    for name, value in members.items():
        yield start + _encode(name) + b":"
        yield from _parts(value)
        start = b","
    yield b"}"


def _list_parts(size: int, items: Callable[[int, int], list[Any]]) -> Iterator[bytes]:
    has_objects = isinstance(items(0, 1)[0], Struct | dict | list) if size else False
    step = _MAX_ITEMS if has_objects else _MAX_SCALARS
    yield b"["
    for start in range(0, size, step):
        part = items(start, start + step)
        if start:
            yield b","
        if has_objects and any(map(_is_large, part)):
            yield from _joined(part)
        else:
            yield _encode(part)[1:-1]
    yield b"]"


def _joined(items: list[Any]) -> Iterator[bytes]:
    for index, item in enumerate(items):
        if index:
            yield b","
        yield from _parts(item)


def _is_large(value: object) -> bool:
    """Return whether a value is to be encoded in parts: a long list, or an object with a long list or another object
    in it.
    """
    if isinstance(value, list):
        return len(value) > _MAX_ITEMS or any(map(_is_large, value))
    if isinstance(value, Struct):
        return any(_is_long(getattr(value, name)) for name in value.__struct_fields__)
    return isinstance(value, dict) and (len(value) > _MAX_ITEMS or any(map(_is_long, value.values())))


def _is_long(value: object) -> bool:
    return isinstance(value, Struct | dict | _LongList) or (isinstance(value, list) and len(value) > _MAX_ITEMS)
