"""The maximum number of new tokens in the body of a request of the chat lane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LIMITS = ("max_tokens", "max_completion_tokens")


def token_limit(body: Mapping[str, Any]) -> int | None:
    """Return the maximum number of new tokens that a request sets; None for none, or one that is not a number."""
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    return limit if type(limit) is int and limit > 0 else None


def with_token_limit(body: dict[str, Any], limit: int | None) -> dict[str, Any]:
    """Return `body` with a lower maximum of new tokens, which a minimum does not exceed; with None, without any."""
    before, minimum = token_limit(body), body.get("min_tokens")
    if limit is None:
        is_maximum = type(minimum) is int and before is not None and minimum >= before
        dropped = (*_LIMITS, "min_tokens") if is_maximum else _LIMITS
        return {name: value for name, value in body.items() if name not in dropped}
    limits = {name: min(limit, own) for name in _LIMITS if (own := token_limit({name: body.get(name)})) is not None}
    return body | limits | ({"min_tokens": limit} if type(minimum) is int and minimum > limit else {})


def with_remaining_tokens(body: dict[str, Any], delivered: int) -> dict[str, Any]:
    """Return `body` for the rest of an answer of which `delivered` tokens were delivered."""
    limits = {name: token_limit({name: body.get(name)}) for name in _LIMITS}
    return body | {name: max(1, limit - delivered) for name, limit in limits.items() if limit is not None}
