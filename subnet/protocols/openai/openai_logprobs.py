"""Validation of the logprobs in a chunk, in the form of chat completions and in that of text completions."""

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


class TextLogprobsReader:
    """Reader of the logprobs of one choice of a text completion, which may arrive in parts."""

    def __init__(self) -> None:
        self._offset = 0

    def read(self, value: Any) -> list[dict[str, Any]] | None:
        """Return the same entries as `read_logprobs`, each with a `text_offset` besides.

        They are read from OpenAI's lists of tokens, or from entries as in chat completions: llama-server's and
        Ollama's. The logprob is NaN for a token that has none: the first one of an echoed prompt. An offset that is
        missing is computed. Raises WireError.
        """
        entries = _from_lists(value) if isinstance(value, dict) and "tokens" in value else read_logprobs(value)
        for entry in entries or ():
            entry["text_offset"] = entry.get("text_offset", self._offset)
            self._offset = entry["text_offset"] + len(entry["token"])
        return entries


def _from_lists(value: dict[str, Any]) -> list[dict[str, Any]] | None:
    tokens, logprobs = value["tokens"] or [], value.get("token_logprobs") or []
    if not isinstance(tokens, list) or not isinstance(logprobs, list) or len(tokens) != len(logprobs):
        raise WireError("invalid logprobs: expected as many token_logprobs as tokens")
    tops, offsets = (_aligned(value.get(name), len(tokens)) for name in ("top_logprobs", "text_offset"))
    return [_from_list(*fields) for fields in zip(tokens, logprobs, tops, offsets, strict=True)] or None


def _aligned(values: Any, length: int) -> list[Any]:
    """Return a list that may be missing, with `length` items."""
    if not isinstance(values, list) or len(values) != length:
        return [None] * length
    return values


def _from_list(token: Any, logprob: Any, top: Any, offset: Any) -> dict[str, Any]:
    if not isinstance(token, str):
        raise WireError("invalid logprobs: a token is not a string")
    tops = top.items() if isinstance(top, dict) else ()
    entry = {
        "token": token,
        "logprob": math.nan if logprob is None else _number(logprob),
        "bytes": None,
        "top_logprobs": [{"token": name, "logprob": _number(number), "bytes": None} for name, number in tops],
    }
    return entry | ({"text_offset": offset} if type(offset) is int and 0 <= offset < 1 << 53 else {})


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
