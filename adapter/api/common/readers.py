"""Readers of request bodies: decode and validate, or raise a BadRequest that names the invalid parameter."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from adapter.api.common.body_json import DecodedBody, decode_body
from adapter.api.common.contract import Contract, unknown_parameter
from adapter.api.common.members import unknown_members
from adapter.api.common.other_forms import to_openai
from adapter.api.common.validation_errors import validation_error
from adapter.errors import BadRequest

R = TypeVar("R", bound=msgspec.Struct)

_NO_INTEGER = re.compile(r"Expected `int[^`]*`, got `float` - at `\$\.(\w+)`")


class ParsedRequest(NamedTuple, Generic[R]):
    """A validated request, the JSON object it was read from, the names of its unknown parameters and the paths of
    unknown members in the others, and what was repaired in its JSON.
    """

    request: R
    body: dict[str, Any]
    unknown: tuple[str, ...]
    repairs: tuple[str, ...] = ()


class OlderForm(NamedTuple):
    """An older form of requests. `convert` returns a body in the newer one, and itself if it is; `name_older` an error
    with the older names. `parameters` are those that only the older form has.
    """

    parameters: frozenset[str]
    convert: Callable[[dict[str, Any]], dict[str, Any]]
    name_older: Callable[[BadRequest], BadRequest]


class Reader(Generic[R]):
    """Reader of the requests of one endpoint.

    `check` enforces what types and ranges cannot express, and `check_strictly` what only `strict` refuses. Without a
    `contract`, other parameters than those of `struct` are not checked. Requests may have the form `older`, too.
    """

    def __init__(
        self,
        struct: type[R],
        contract: Contract | None = None,
        check: Callable[[R], None] | None = None,
        check_strictly: Callable[[R], None] | None = None,
        older: OlderForm | None = None,
    ) -> None:
        self._struct = struct
        self._contract = contract
        self._check = check
        self._check_strictly = check_strictly
        self._older = older

    def __call__(self, body: bytes, *, strict: bool = False, model: str | None = None) -> ParsedRequest[R]:
        """Decode `body` and validate it, with `model` in place of its own if that is not None.

        Raises BadRequest; if `strict`, also for unknown parameters.
        """
        decoded = self._decode(body)
        if model is not None:
            decoded.value["model"] = model
        elif decoded.value.get("model", True) in (None, "") and not strict:
            # A null, as of any parameter, and an empty name count as absent.
            del decoded.value["model"]
        return self.validate(decoded.value, strict=strict)._replace(repairs=decoded.repairs)

    def validate(self, given: dict[str, Any], *, strict: bool = False) -> ParsedRequest[R]:
        """Validate a decoded body. Raises the same errors as a call."""
        older = self._older
        if older is None or older.parameters.isdisjoint(given):
            try:
                return self._validate(given, strict=strict)
            except BadRequest:
                # The messages are searched only now, so that requests in the newer form cost nothing.
                if older is None or (converted := older.convert(given)) is given:
                    raise
        else:
            converted = older.convert(given)
        try:
            return self._validate(converted, strict=strict)
        except BadRequest as error:
            raise (error if converted is given else older.name_older(error)) from error

    def _validate(self, given: dict[str, Any], *, strict: bool) -> ParsedRequest[R]:
        request, given = self._convert(given, strict=strict)
        unknown = () if self._contract is None else self._unknown(self._contract, given, strict)
        if self._check is not None:
            self._check(request)
        if strict and self._check_strictly is not None:
            self._check_strictly(request)
        return ParsedRequest(request, given, unknown)

    def _unknown(self, contract: Contract, given: dict[str, Any], strict: bool) -> tuple[str, ...]:
        names, members = contract.check(given, strict=strict), unknown_members(given, self._struct)
        if members and strict:
            raise unknown_parameter(members[0])
        return (*names, *members)

    def _convert(self, given: dict[str, Any], *, strict: bool) -> tuple[R, dict[str, Any]]:
        """Return the request, and the body that it was converted from, in OpenAI's form unless `strict`."""
        while True:
            try:
                return msgspec.convert(given, self._struct, str_keys=True), given
            except msgspec.ValidationError as error:
                if _make_integer(given, str(error)):
                    continue
                # Only now, so that requests in OpenAI's form cost nothing.
                if strict or (converted := to_openai(given)) is given:
                    raise validation_error(str(error), given, self._struct) from error
                given = converted
            except RecursionError as error:
                raise _invalid_json(str(error)) from error

    def _decode(self, body: bytes) -> DecodedBody:
        try:
            return decode_body(body)
        except msgspec.ValidationError as error:
            raise validation_error(_add_location(body, str(error)), {}, self._struct) from error
        except UnicodeDecodeError as error:
            raise _invalid_json("it is not valid UTF-8") from error
        except (msgspec.DecodeError, RecursionError) as error:
            raise _invalid_json(str(error)) from error


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
