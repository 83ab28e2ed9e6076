"""Finding out what stands at an address."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec

from subnet.detect.probes import PROBES, Probe
from subnet.errors import NodeError, NodeLost, NodeTimeout, RequestError, SubnetError, WireError
from subnet.http.client import Http
from subnet.http.error_map import NotFound
from subnet.http.node_spec import Kind, NodeSpec

# How a server answers a question that it does not know.
_STRANGE = (NotFound, WireError, RequestError)
_UNOWNED = [probe for probe in PROBES if not probe.owned]


class Unsuitable(NodeError):
    """What stands there cannot be used, and will not be another soon."""


class _Model(msgspec.Struct):
    id: str
    owned_by: str | None = None


class _Models(msgspec.Struct):
    """Ollama without a model says null."""

    data: list[_Model] | None


class Found(msgspec.Struct, frozen=True):
    """`version` is "" where it does not tell. `models` are its own names of them, where they are known."""

    kind: Kind
    version: str = ""
    models: tuple[str, ...] = ()


async def look(spec: NodeSpec, before: Kind | None = None, *, patience: float = 5.0) -> Found:
    """What stands at the address of `spec`, and stood there `before`. A handful of small questions: which models there
    are, and then what only one kind can answer. A kind that was set by hand is believed.

    Raises NodeError: nobody answers, within `patience` seconds in all, the key is refused, it is starting or broken;
    Unsuitable for what speaks otherwise.
    """
    if spec.kind is not None:
        return Found(spec.kind)
    async with Http(spec) as http:
        try:
            async with asyncio.timeout(patience):
                return await _look(http, before)
        except TimeoutError as error:
            raise NodeTimeout(f"detecting the server at {http.peer} timed out after {patience:g} s") from error


async def _look(http: Http, before: Kind | None) -> Found:
    try:
        models = await _models(http)
    except _STRANGE as error:
        # A subnet node has no such path, nor has an old TGI.
        if (found := await _first(http, _UNOWNED)) is None:
            raise Unsuitable(f"no OpenAI-compatible server at {http.peer}: {error}") from error
        return found
    found = await _first(http, _likely(models, before), likely=True)
    if found is None and before != "openai":
        found = await _first(http, _UNOWNED)
    return msgspec.structs.replace(found or Found("openai"), models=tuple(model.id for model in models))


def _likely(models: Iterable[_Model], before: Kind | None) -> list[Probe]:
    owners = {model.owned_by for model in models}
    return [probe for probe in PROBES if probe.owners & owners or probe.kind == before]


async def _first(http: Http, probes: Iterable[Probe], *, likely: bool = False) -> Found | None:
    """All are asked at once; the first of those that answer as they should counts."""
    answers = await asyncio.gather(*(_answer(http, probe, likely) for probe in probes), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return next((found for found in answers if isinstance(found, Found)), None)


async def _answer(http: Http, probe: Probe, likely: bool) -> Found | None:
    answer = await _one_of(http, probe.paths, probe.shape, likely)
    if answer is None:
        return None
    if probe.version_paths:
        answer = await _one_of(http, probe.version_paths, probe.version_shape, likely=False)
    return Found(probe.kind, getattr(answer, "version", ""))


async def _one_of(http: Http, paths: Iterable[str], shape: Any, likely: bool) -> Any:
    """What the first of `paths` has that has this shape, else None. Raises NodeLost; of a `likely` server also that it
    asks for a key, as llama-server does for all but its models, or is broken: it is no other for that.
    """
    for path in paths:
        try:
            return msgspec.convert(await http.get(path), shape)
        except (*_STRANGE, msgspec.ValidationError):
            continue
        except SubnetError as error:
            if likely or isinstance(error, NodeLost):
                raise
    return None


async def _models(http: Http) -> list[_Model]:
    """Raises NodeError or RequestError."""
    answer = await http.get("/v1/models")
    # Together sends the list alone.
    answer = {"data": answer} if isinstance(answer, list) else answer
    try:
        return msgspec.convert(answer, _Models).data or []
    except msgspec.ValidationError as error:
        raise WireError(f"{http.peer} returned an unrecognised model list") from error
