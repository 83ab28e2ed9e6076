"""Time until a rate-limited request may be retried, from a server's response."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
# Maximum in seconds: longer times are mistakes, and the server must not be lost for good.
_MAX = 86400.0
_IN_MESSAGE = re.compile(rf"(?:try again|retry) in ({_DURATION.pattern})")


def retry_after(headers: Mapping[str, str], body: Any = None, message: str = "") -> float | None:
    """Return the seconds from now until a retry, at most a day, or None if the server does not report it.

    The first of these applies: `retry-after-ms` (Azure), `retry-after` in seconds or as a date (RFC 9110),
    `x-ratelimit-reset-requests` and `-tokens` (OpenAI, Groq: "6m0s"), `x-ratelimit-reset` (OpenRouter: milliseconds
    since 1970, also in the body's metadata), a RetryInfo in the body (Gemini), and the message ("Please try again in
    7.66s", OpenAI and Groq).
    """
    fields = {name.lower(): value.strip() for name, value in {**_metadata(body), **headers}.items()}
    seconds = _number(fields.get("retry-after-ms"), 0.001)
    if seconds is None and (text := fields.get("retry-after")) is not None:
        seconds = _number(text) if _number(text) is not None else _date(text)
    if seconds is None:
        seconds = _reset(fields)
    if seconds is None:
        seconds = _retry_info(body)
    if seconds is None and (match := _IN_MESSAGE.search(message)) is not None:
        seconds = _duration(match[1])
    return None if seconds is None else min(seconds, _MAX)


def _reset(fields: Mapping[str, str]) -> float | None:
    """Return the seconds until the exhausted limits are reset; until all are, if none is reported as exhausted."""
    resets = {
        limit: seconds
        for limit in ("requests", "tokens")
        if (seconds := _duration(fields.get(f"x-ratelimit-reset-{limit}", ""))) is not None
    }
    exhausted = [seconds for limit, seconds in resets.items() if fields.get(f"x-ratelimit-remaining-{limit}") == "0"]
    if resets:
        return max(exhausted or resets.values())
    moment = _number(fields.get("x-ratelimit-reset"))
    return None if moment is None or moment < 1e12 else max(0.0, moment / 1000 - time.time())


def _metadata(body: Any) -> dict[str, str]:
    """Return the headers in OpenRouter's body: {"error": {"metadata": {"headers": {...}}}}."""
    inner: Any = body
    for name in ("error", "metadata", "headers"):
        inner = inner.get(name) if isinstance(inner, dict) else None
    return {name: value for name, value in inner.items() if isinstance(value, str)} if isinstance(inner, dict) else {}


def _retry_info(body: Any) -> float | None:
    """Return the delay in Gemini's body.

    {"error": {"details": [{"@type": ".../google.rpc.RetryInfo", "retryDelay": "34s"}]}}
    """
    error = body.get("error") if isinstance(body, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and isinstance(delay := detail.get("retryDelay"), str):
            return _duration(delay)
    return None


def _number(text: str | None, unit: float = 1.0) -> float | None:
    try:
        seconds = float(text or "") * unit
    except ValueError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _date(text: str) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _duration(text: str) -> float | None:
    """Convert a duration such as "6m0s", "20ms" or "7.66s" to seconds; None if it is invalid."""
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
