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
_NO_INTEGER = re.compile(r"Expected `int[^`]*`, got `float` - at `\$\.(\w+)`")
_LONE_SURROGATE = re.compile(rb"\\u[dD](?:[89abAB]..(?!\\u[dD][c-fC-F])|[c-fC-F])")


class ParsedRequest(NamedTuple, Generic[R]):
    """A validated request, the JSON object it was read from, and the names of its unknown parameters."""

    request: R
    body: dict[str, Any]
    unknown: tuple[str, ...]


class Reader(Generic[R]):
    """Reader of the requests of one endpoint.

    `check` enforces what types and ranges cannot express. Without a `contract`, other parameters than those of `struct`
    are not checked.
    """

    def __init__(
        self, struct: type[R], contract: Contract | None = None, check: Callable[[R], None] | None = None
    ) -> None:
        self._struct = struct
        self._contract = contract
        self._check = check

    def __call__(self, body: bytes, *, strict: bool = False, model: str | None = None) -> ParsedRequest[R]:
        """Decode `body` and validate it, with `model` in place of its own if that is not None.

        Raises BadRequest; if `strict`, also for unknown parameters.
        """
        given = self._decode(body)
        if model is not None:
            given["model"] = model
        return self.validate(given, strict=strict)

    def validate(self, given: dict[str, Any], *, strict: bool = False) -> ParsedRequest[R]:
        """Validate a decoded body. Raises the same errors as a call."""
        request = self._convert(given)
        unknown = () if self._contract is None else self._contract.check(given, strict=strict)
        if self._check is not None:
            self._check(request)
        return ParsedRequest(request, given, unknown)

    def _convert(self, given: dict[str, Any]) -> R:
        while True:
            try:
                return msgspec.convert(given, self._struct, str_keys=True)
            except msgspec.ValidationError as error:
                if not _make_integer(given, str(error)):
                    raise validation_error(str(error), given, self._struct) from error
            except RecursionError as error:
                raise _invalid_json(str(error)) from error

    def _decode(self, body: bytes) -> dict[str, Any]:
        try:
            body.decode()
            return _decode(body)
        except msgspec.ValidationError as error:
            raise validation_error(_add_location(body, str(error)), {}, self._struct) from error
        except UnicodeDecodeError as error:
            raise _invalid_json("it is not valid UTF-8") from error
        except (msgspec.DecodeError, RecursionError) as error:
            hint = " (unpaired surrogate)" if _LONE_SURROGATE.search(body) else ""
            raise _invalid_json(f"{error}{hint}") from error


def _make_integer(given: dict[str, Any], problem: str) -> bool:
    """Replace the parameter of which msgspec says that it is no integer by the one that it equals; return False if it
    equals none. Clients in Lua and JavaScript write 10.0.
    """
    found = _NO_INTEGER.fullmatch(problem)
    value = None if found is None else given.get(found[1])
    if found is None or not isinstance(value, float) or not value.is_integer():
        return False
    given[found[1]] = int(value)
    return True


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
