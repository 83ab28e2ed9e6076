"""Validation of the logprobs in a chunk."""

from __future__ import annotations

import math
from typing import Any

from subnet.errors import WireError

_MIN_LOGPROB = -9999.0


def read_logprobs(value: Any) -> list[dict[str, Any]] | None:
    """Return the entries of `logprobs.content`, each with token, logprob, bytes and top_logprobs only.

    None if there are no entries. Raises WireError for invalid entries.
    """
    content = value.get("content") if isinstance(value, dict) else None
    if content is None:
        return None
    if not isinstance(content, list):
        raise WireError("invalid logprobs: expected a list")
    return [_entry(entry) | {"top_logprobs": _top(entry)} for entry in content] or None


def _top(entry: Any) -> list[dict[str, Any]]:
    top = entry.get("top_logprobs") or []
    if not isinstance(top, list):
        raise WireError("invalid top_logprobs: expected a list")
    return [_entry(alternative) for alternative in top]


def _entry(entry: Any) -> dict[str, Any]:
    token = entry.get("token") if isinstance(entry, dict) else None
    if not isinstance(token, str) or "logprob" not in entry:
        raise WireError("invalid logprobs: an entry has no token or no logprob")
    return {"token": token, "logprob": _number(entry.get("logprob")), "bytes": _bytes(entry.get("bytes"), token)}


def _number(value: Any) -> float:
    if value is None or (type(value) is float and (math.isnan(value) or value == -math.inf)):
        # Servers send these for a probability of 0; OpenAI a finite minimum.
        return _MIN_LOGPROB
    # Bounded, because a JSON integer may be too large for a float.
    if type(value) is int and abs(value) < 1 << 53:
        return float(value)
    if type(value) is not float or not math.isfinite(value):
        raise WireError("invalid logprobs: a token has no finite logprob")
    return value


def _bytes(value: Any, token: str) -> list[int]:
    """Return the token's bytes; those of its text if the server sends none, which is wrong for partial characters."""
    if value is None:
        return list(token.encode("utf-8", "replace"))
    if not isinstance(value, list) or not all(type(byte) is int and 0 <= byte < 256 for byte in value):
        raise WireError("invalid logprobs: bytes must be integers between 0 and 255")
    return value
