"""Reads request bodies: bytes to a request, or a BadRequest that names the exact place."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from adapter.api.common.contract import Contract
from adapter.api.common.validation_errors import misfit
from adapter.errors import BadRequest

R = TypeVar("R", bound=msgspec.Struct)

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_LONE_SURROGATE = re.compile(rb"\\u[dD](?:[89abAB]..(?!\\u[dD][c-fC-F])|[c-fC-F])")


class Read(NamedTuple, Generic[R]):
    """A request, the JSON object that it was read from, and the names of its unknown parameters."""

    request: R
    body: dict[str, Any]
    unknown: tuple[str, ...]


class Reader(Generic[R]):
    """Reads the requests of one endpoint. `check` sees what types and ranges cannot."""

    def __init__(self, struct: type[R], contract: Contract, check: Callable[[R], None] | None = None) -> None:
        self._struct = struct
        self._contract = contract
        self._check = check

    def __call__(self, body: bytes, *, strict: bool = False) -> Read[R]:
        """Decodes `body` once, and validates it. With `strict` unknown parameters are refused. Raises BadRequest."""
        given: dict[str, Any] = {}
        try:
            body.decode()
            given = _decode(body)
            request = msgspec.convert(given, self._struct, str_keys=True)
        except msgspec.ValidationError as error:
            text = str(error) if given else _located(body, str(error))
            raise misfit(text, given, self._struct) from error
        except UnicodeDecodeError as error:
            raise _malformed("it is not valid UTF-8") from error
        except (msgspec.DecodeError, RecursionError) as error:
            hint = " (unpaired surrogate)" if _LONE_SURROGATE.search(body) else ""
            raise _malformed(f"{error}{hint}") from error
        unknown = self._contract.check(given, strict=strict)
        if self._check is not None:
            self._check(request)
        return Read(request, given, unknown)


def _located(body: bytes, problem: str) -> str:
    """Adds the parameter that cannot be decoded, such as one with a number that no float holds, to msgspec's words."""
    with suppress(msgspec.DecodeError):
        for name, value in msgspec.json.decode(body, type=dict[str, msgspec.Raw]).items():
            try:
                msgspec.json.decode(value)
            except msgspec.ValidationError as error:
                return f"{error} - at `$.{name}`"
    return problem


def _malformed(why: str) -> BadRequest:
    return BadRequest(f"We could not parse the JSON body of your request: {why}.", code="invalid_json")
