"""Finding out what stands at an address."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec

from subnet.errors import NodeBusy, NodeError, NodeLost, NodeTimeout, SubnetError, Unauthorized
from subnet.upstream.http import Http
from subnet.upstream.kinds import PROBES, Probe
from subnet.upstream.spec import Kind, NodeSpec

_Errors = tuple[type[NodeError], ...]
_UNOWNED = [probe for probe in PROBES if not probe.owned]


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

    Raises NodeError: nobody answers, within `patience` seconds in all, the key is refused, or nothing there is known.
    """
    if spec.kind is not None:
        return Found(spec.kind)
    async with Http(spec) as http:
        try:
            async with asyncio.timeout(patience):
                return await _look(http, before)
        except TimeoutError as error:
            raise NodeTimeout(f"{http.peer} did not answer within {patience:g} s") from error


async def _look(http: Http, before: Kind | None) -> Found:
    try:
        models = await _models(http)
    except (NodeLost, NodeBusy, Unauthorized):
        raise
    except SubnetError as error:
        # A subnet node has no such path, nor has an old TGI.
        if (found := await _first(http, _UNOWNED)) is None:
            raise NodeError(f"nothing at {http.peer} speaks OpenAI's API: {error}") from error
        return found
    # llama-server lists its models to everybody, and says nothing else without a key.
    found = await _first(http, _likely(models, before), telling=(NodeLost, Unauthorized))
    if found is None and before != "openai":
        found = await _first(http, _UNOWNED)
    return msgspec.structs.replace(found or Found("openai"), models=tuple(model.id for model in models))


def _likely(models: Iterable[_Model], before: Kind | None) -> list[Probe]:
    owners = {model.owned_by for model in models}
    return [probe for probe in PROBES if probe.owners & owners or probe.kind == before]


async def _first(http: Http, probes: Iterable[Probe], telling: _Errors = (NodeLost,)) -> Found | None:
    """All are asked at once; the first of those that answer as they should counts. Raises errors that are `telling`:
    without an answer one kind would look like another.
    """
    answers = await asyncio.gather(*(_answer(http, probe, telling) for probe in probes), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return next((found for found in answers if isinstance(found, Found)), None)


async def _answer(http: Http, probe: Probe, telling: _Errors) -> Found | None:
    answer = await _one_of(http, probe.paths, probe.shape, telling)
    if answer is None:
        return None
    if probe.version_paths:
        answer = await _one_of(http, probe.version_paths, probe.version_shape, telling)
    return Found(probe.kind, getattr(answer, "version", ""))


async def _one_of(http: Http, paths: Iterable[str], shape: Any, telling: _Errors) -> Any:
    """What the first of `paths` has that has this shape, else None."""
    for path in paths:
        try:
            return msgspec.convert(await http.get(path), shape)
        except (SubnetError, msgspec.ValidationError) as error:
            if isinstance(error, telling):
                raise
    return None


async def _models(http: Http) -> list[_Model]:
    """Raises NodeError, or RequestError."""
    answer = await http.get("/v1/models")
    # Together sends the list alone.
    answer = {"data": answer} if isinstance(answer, list) else answer
    try:
        return msgspec.convert(answer, _Models).data or []
    except msgspec.ValidationError as error:
        raise NodeError(f"{http.peer} lists its models in a way of its own") from error
