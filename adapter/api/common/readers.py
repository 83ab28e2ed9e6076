"""Readers of request bodies: decode and validate, or raise a BadRequest that names the invalid parameter."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from adapter.api.common.contract import Contract
from adapter.api.common.validation_errors import validation_error
from adapter.errors import BadRequest

R = TypeVar("R", bound=msgspec.Struct)

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_LONE_SURROGATE = re.compile(rb"\\u[dD](?:[89abAB]..(?!\\u[dD][c-fC-F])|[c-fC-F])")


class ParsedRequest(NamedTuple, Generic[R]):
    """A validated request, the JSON object it was read from, and the names of its unknown parameters."""

    request: R
    body: dict[str, Any]
    unknown: tuple[str, ...]


class Reader(Generic[R]):
    """Reader of the requests of one endpoint. `check` enforces what types and ranges cannot express."""

    def __init__(self, struct: type[R], contract: Contract, check: Callable[[R], None] | None = None) -> None:
        self._struct = struct
        self._contract = contract
        self._check = check

    def __call__(self, body: bytes, *, strict: bool = False) -> ParsedRequest[R]:
        """Decode `body` and validate it. Raises BadRequest; if `strict`, also for unknown parameters."""
        given: dict[str, Any] = {}
        try:
            body.decode()
            given = _decode(body)
            request = msgspec.convert(given, self._struct, str_keys=True)
        except msgspec.ValidationError as error:
            text = str(error) if given else _add_location(body, str(error))
            raise validation_error(text, given, self._struct) from error
        except UnicodeDecodeError as error:
            raise _invalid_json("it is not valid UTF-8") from error
        except (msgspec.DecodeError, RecursionError) as error:
            hint = " (unpaired surrogate)" if _LONE_SURROGATE.search(body) else ""
            raise _invalid_json(f"{error}{hint}") from error
        unknown = self._contract.check(given, strict=strict)
        if self._check is not None:
            self._check(request)
        return ParsedRequest(request, given, unknown)


def _add_location(body: bytes, problem: str) -> str:
    """Append the place of the parameter that cannot be decoded to msgspec's message.

    msgspec does not name it if decoding itself fails, such as for a number that no float can represent.
    """
    with suppress(msgspec.DecodeError):
        for name, value in msgspec.json.decode(body, type=dict[str, msgspec.Raw]).items():
            try:
                msgspec.json.decode(value)
            except msgspec.ValidationError as error:
                return f"{error} - at `$.{name}`"
    return problem


def _invalid_json(why: str) -> BadRequest:
    return BadRequest(f"We could not parse the JSON body of your request: {why}.", code="invalid_json")
