"""Members of a server's answer that are passed on as they are, put into the gateway's own JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from adapter.decode.events import Used
from adapter.decode.usage import Usage


def with_extra(own: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """Return `own` with the members of `extra`. Objects in both are merged; otherwise the own member counts."""
    inner = {
        name: with_extra(own[name], value)
        for name, value in extra.items()
        if isinstance(value, dict) and isinstance(own.get(name), dict)
    }
    return {**extra, **own, **inner}


def usage_with_extra(used: Used) -> Usage | dict[str, Any]:
    """Return the usage of an answer, as a dict if it has other members."""
    return used.usage if used.extra is None else with_extra(msgspec.to_builtins(used.usage), used.extra)


def chunk_with_extra(data: bytes, extra: dict[str, Any]) -> bytes:
    """Return server-sent events with the members of `extra` added to each chunk, which has none of them yet.

    There are two if one chunk of a server begins a choice. JSON has no line break, so that each ends a chunk.
    """
    return data.replace(b"}\n\n", b"," + msgspec.json.encode(extra)[1:] + b"\n\n")
