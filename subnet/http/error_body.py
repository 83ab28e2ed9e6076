"""What servers say of their errors, in whichever form."""

from __future__ import annotations

import re
from typing import Any

import msgspec

# In characters: a server that sends a page instead of a sentence.
_LONGEST = 1000
_NAMES = ("type", "code", "status", "reason", "error_type")
# The kinds of error that come without a status, as servers name them.
_STATUSES: tuple[tuple[str, int], ...] = (
    ("insufficient_quota|rate_?limit|resource_exhausted|too_?many", 429),
    ("authentication|unauthenticated|api_key", 401),
    ("permission", 403),
    ("not_?found", 404),
    ("invalid|bad_?request|validation|context|content_|unprocessable", 400),
    ("overloaded", 529),
    ("unavailable", 503),
)


class Said(msgspec.Struct, frozen=True):
    """`names` are the error's type, code and the like; `status` is what these amount to, 500 where that is unclear."""

    message: str
    names: str = ""
    param: str | None = None
    status: int = 500

    @property
    def everything(self) -> str:
        return f"{self.names} {self.message}"

    @classmethod
    def read(cls, body: Any) -> Said:
        """From a JSON value, or from text.

        Known forms: {"error": {"message", "type", "param", "code"}} (OpenAI and most), in a list (Gemini), without
        "error" (vLLM and Mistral, older), {"error": "text", "error_type"} (Ollama, TGI), {"detail": "text" or
        [{"loc", "msg"}]} (FastAPI; as the "message" at Mistral), {"error": {..., "innererror": {"code"}}} (Azure).
        """
        if isinstance(body, list) and body:
            body = body[0]
        if isinstance(body, str):
            return cls("" if body.lstrip().startswith("<") else _short(body))
        if not isinstance(body, dict):
            return cls("")
        error = body.get("error")
        outer = error if isinstance(error, dict) else body
        words = error if isinstance(error, str) else outer.get("message", outer.get("detail", outer.get("msg")))
        message, place = _message(words)
        param = outer.get("param")
        found = [*_named(outer), *_named(body), *_named(outer.get("innererror"))]
        names = " ".join(dict.fromkeys(found))
        return cls(message, names, param if isinstance(param, str) and param else place, _status(found))


def _named(part: Any) -> list[str]:
    if not isinstance(part, dict):
        return []
    return [str(value) for name in _NAMES if isinstance(value := part.get(name), str | int) and value != ""]


def _status(names: list[str]) -> int:
    for name in names:
        if len(name) == 3 and name.isdecimal() and 400 <= int(name) < 600:
            return int(name)
    for pattern, status in _STATUSES:
        if any(re.search(pattern, name, re.IGNORECASE) for name in names):
            return status
    return 500


def _message(words: Any) -> tuple[str, str | None]:
    """The sentence, and the place that it speaks of."""
    if isinstance(words, dict):
        words = words.get("detail", words.get("message"))
    if isinstance(words, list) and words and isinstance(words[0], dict):
        path = words[0].get("loc")
        steps = [str(step) for step in path] if isinstance(path, list) else []
        return _short(str(words[0].get("msg", ""))), ".".join(step for step in steps if step != "body") or None
    return (_short(words) if isinstance(words, str) else ""), None


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
