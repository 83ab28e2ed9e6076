"""bytes -> a request, or a BadRequest that names the exact place."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from adapter.api import validation as checks
from adapter.api.chat.request import ChatCompletionRequest
from adapter.api.completions.types import CompletionRequest
from adapter.api.contract import Contract, contract
from adapter.api.embeddings.types import EmbeddingRequest
from adapter.api.tokenize.types import DetokenizeRequest, TokenizeRequest
from adapter.api.validation_errors import misfit
from adapter.errors import BadRequest

R = TypeVar("R", bound=msgspec.Struct)

_GIVEN = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LONE_SURROGATE = re.compile(rb"\\u[dD](?:[89abAB]..(?!\\u[dD][c-fC-F])|[c-fC-F])")


class Reader(Generic[R]):
    """Of the requests of one endpoint. `check` sees what types and ranges cannot."""

    def __init__(self, struct: type[R], contract: Contract, check: Callable[[R], None] | None = None) -> None:
        self._struct = struct
        self._decoder = msgspec.json.Decoder(struct)
        self._contract = contract
        self._check = check

    def __call__(self, body: bytes, *, strict: bool = False) -> tuple[R, tuple[str, ...]]:
        """The request, and the names of those of its parameters that nobody knows: with `strict` these are refused,
        too. Raises BadRequest.
        """
        given: dict[str, msgspec.Raw] = {}
        try:
            body.decode()
            given = _GIVEN.decode(body)
            request = self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise misfit(str(error), given, self._struct) from error
        except UnicodeDecodeError as error:
            raise _malformed("it is not valid UTF-8") from error
        except (msgspec.DecodeError, RecursionError) as error:
            hint = " (unpaired surrogate)" if _LONE_SURROGATE.search(body) else ""
            raise _malformed(f"{error}{hint}") from error
        ignored = self._contract.check(given, strict=strict)
        if self._check is not None:
            self._check(request)
        return request, ignored


def _malformed(why: str) -> BadRequest:
    return BadRequest(f"We could not parse the JSON body of your request: {why}.", code="invalid_json")


read_request = Reader(ChatCompletionRequest, contract("chat"), checks.check_chat)
read_completion = Reader(CompletionRequest, contract("completions"), checks.check_completion)
read_embedding = Reader(EmbeddingRequest, Contract(EmbeddingRequest.__struct_fields__), checks.check_embedding)
read_tokenize = Reader(TokenizeRequest, Contract(TokenizeRequest.__struct_fields__), checks.check_tokenize)
read_detokenize = Reader(DetokenizeRequest, Contract(DetokenizeRequest.__struct_fields__))
