"""Error bodies of servers, in all their formats."""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import Any

import msgspec

# Limit in characters, for servers that send a page instead of a sentence.
_MAX_MESSAGE = 1000
# Servers have many names for a status: status_code, statusCode, http_status_code (TGI).
_CODE_FIELD = re.compile("type|reason|error_type|.*(code|status).*", re.IGNORECASE)
_MAX_FIELDS = 32
# Messages about the request itself, for errors without any code.
_INVALID_REQUEST = re.compile(
    r"validation error|invalid (argument|format|image|input|message|param|request|role|schema|type|url|value)"
    r"|unsupported|not (supported|allowed|permitted)|must (be|not|have)|(should|has to) be|unrecognized|out of range"
    r"|unknown (parameter|field)|cannot be (greater|less|empty|used)|(greater|less|more) than (the )?max",
    re.IGNORECASE,
)
# HTTP statuses for error codes that come without one.
_STATUSES: tuple[tuple[str, int], ...] = (
    ("insufficient_quota|rate_?limit|resource_exhausted|too_?many", 429),
    ("authentication|unauthenticated|api_key", 401),
    ("permission", 403),
    ("not_?found", 404),
    ("invalid|bad_?request|validation|context|content_|unprocessable", 400),
    ("overloaded", 529),
    ("unavailable", 503),
)


class ErrorBody(msgspec.Struct, frozen=True):
    """Content of an error body.

    `codes` are the error's type, code and the like, separated by spaces. `status` is the HTTP status that they, or
    without any the words of the message, stand for; 500 if that is unclear. `param` is the invalid parameter, if the
    server names it; `type` and `code` are those of OpenAI's format.
    """

    message: str
    codes: str = ""
    param: str | None = None
    status: int = 500
    type: str | None = None
    code: str | None = None

    @property
    def text(self) -> str:
        """All codes and the message, to be searched."""
        return f"{self.codes} {self.message}"

    @classmethod
    def parse(cls, body: Any) -> ErrorBody:
        """Read a JSON value, or text.

        Known forms: {"error": {"message", "type", "param", "code"}} (OpenAI and most), in a list (Gemini), without
        "error" (vLLM and Mistral, older), {"error": "text", "error_type"} (Ollama, TGI), {"detail": "text" or
        [{"loc", "msg"}]} (FastAPI; as the "message" at Mistral), {"error": {..., "innererror": {"code"}}} (Azure), and
        a message with the whole body of another server in it (LiteLLM).
        """
        if isinstance(body, list) and body:
            body = body[0]
        if isinstance(body, str):
            return cls("" if body.lstrip().startswith("<") else _truncate(body))
        if not isinstance(body, dict):
            return cls("")
        error = body.get("error")
        outer = error if isinstance(error, dict) else body
        detail = error if isinstance(error, str) else outer.get("message", outer.get("detail", outer.get("msg")))
        message, location = _message(detail)
        param = outer.get("param")
        codes = [*_codes(outer), *_codes(body), *_codes(outer.get("innererror"))]
        text = " ".join(dict.fromkeys(codes))
        return cls(
            message,
            text,
            param if isinstance(param, str) and param else location,
            _status(codes) or (400 if _INVALID_REQUEST.search(message) else 500),
            _text(outer.get("type")),
            _text(outer.get("code")),
        )


def _text(value: Any) -> str | None:
    if type(value) is int:
        return str(value)
    return _truncate(value) if isinstance(value, str) and value else None


def _codes(fields: Any) -> list[str]:
    if not isinstance(fields, dict):
        return []
    found = [value for name, value in islice(fields.items(), _MAX_FIELDS) if _CODE_FIELD.fullmatch(name)]
    return [str(value) for value in found if isinstance(value, str | int) and value != ""]


def _status(codes: list[str]) -> int | None:
    for code in codes:
        if len(code) == 3 and code.isdecimal() and 400 <= int(code) < 600:
            return int(code)
    for pattern, status in _STATUSES:
        if any(re.search(pattern, code, re.IGNORECASE) for code in codes):
            return status
    return None


def _message(detail: Any) -> tuple[str, str | None]:
    """Return the message and the location of the error in the request, as a path such as "messages.0.role"."""
    if isinstance(detail, dict):
        detail = detail.get("detail", detail.get("message"))
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        path = detail[0].get("loc")
        steps = [str(step) for step in path] if isinstance(path, list) else []
        return _truncate(str(detail[0].get("msg", ""))), ".".join(step for step in steps if step != "body") or None
    return _unquoted(_truncate(detail)) if isinstance(detail, str) else ("", None)


def _unquoted(message: str) -> tuple[str, str | None]:
    """Return the message and the parameter of the error that a proxy quotes in its own, or `message` as it is."""
    start = message.find('{"error"')
    if start < 0:
        return message, None
    try:
        error = json.JSONDecoder().raw_decode(message, start)[0]["error"]
    except (ValueError, RecursionError):
        return message, None
    inner, param = (error.get("message"), error.get("param")) if isinstance(error, dict) else (None, None)
    return (inner, param if isinstance(param, str) else None) if isinstance(inner, str) and inner else (message, None)


def _truncate(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _MAX_MESSAGE else text[: _MAX_MESSAGE - 3] + "..."
