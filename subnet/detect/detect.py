"""Detection of the server at an address."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec

from subnet.detect.probes import PROBES, Probe
from subnet.errors import NodeError, NodeLost, NodeTimeout, RequestError, SubnetError, WireError
from subnet.http.client import HttpClient
from subnet.http.error_map import NotFound, cannot_list
from subnet.http.node_spec import Kind, NodeSpec

# Errors from servers that do not know the requested path.
_UNKNOWN_PATH = (NotFound, WireError, RequestError)
_PROBES_WITHOUT_OWNER = [probe for probe in PROBES if not probe.requires_owner]


class UnsupportedServer(NodeError):
    """The server at the address cannot be used, and retrying soon will not help."""


class _Model(msgspec.Struct):
    id: str
    owned_by: str | None = None


class _ModelList(msgspec.Struct):
    # Null for an Ollama without models.
    data: list[_Model] | None


class DetectedServer(msgspec.Struct, frozen=True):
    """Type of the server at an address.

    `version` is "" if the server does not report it. `models` are the server's own names, if they are known.
    `certain` is False if the model list failed, so that the type may turn out to be another one.
    """

    kind: Kind
    version: str = ""
    models: tuple[str, ...] = ()
    certain: bool = True


async def detect(spec: NodeSpec, previous: Kind | None = None, *, detection_timeout: float = 5.0) -> DetectedServer:
    """Detect the server at the address of `spec`, with a handful of small requests.

    The model list is requested first, then paths that only one type of server has. `previous` is the type that was
    detected before. A type set in `spec` is returned without any request.

    Raises NodeError if the server is unreachable, starting or failing, or rejects the key; NodeTimeout after
    `detection_timeout` seconds; and UnsupportedServer for a server with another API.
    """
    if spec.kind is not None:
        return DetectedServer(spec.kind)
    async with HttpClient(spec) as http:
        try:
            async with asyncio.timeout(detection_timeout):
                return await _detect(http, spec, previous)
        except TimeoutError as error:
            raise NodeTimeout(f"detecting the server at {http.peer} timed out after {detection_timeout:g} s") from error


async def _detect(http: HttpClient, spec: NodeSpec, previous: Kind | None) -> DetectedServer:
    try:
        models = await _list_models(http)
    except (NodeError, RequestError) as error:
        return await _detect_without_list(http, spec, error)
    detected = await _first_match(http, _likely_probes(models, previous), likely=True)
    if detected is None and previous != "openai":
        detected = await _first_match(http, _PROBES_WITHOUT_OWNER)
    return msgspec.structs.replace(detected or DetectedServer("openai"), models=tuple(model.id for model in models))


async def _detect_without_list(http: HttpClient, spec: NodeSpec, error: NodeError | RequestError) -> DetectedServer:
    """Detect a server that answers the request for its models with `error`. Raises NodeError if it cannot be used.

    Subnet nodes and old versions of TGI do not have this path; any other server needs `models` in its settings.
    """
    is_usable = bool(spec.models) and cannot_list(error)
    if not (is_usable or isinstance(error, _UNKNOWN_PATH)):
        raise error
    if (detected := await _first_match(http, _PROBES_WITHOUT_OWNER)) is not None:
        return detected
    if not is_usable:
        raise UnsupportedServer(f"no OpenAI-compatible server at {http.peer}: {error}") from error
    return DetectedServer("openai", certain=isinstance(error, _UNKNOWN_PATH))


def _likely_probes(models: Iterable[_Model], previous: Kind | None) -> list[Probe]:
    owners = {model.owned_by for model in models}
    return [probe for probe in PROBES if probe.owners & owners or probe.kind == previous]


async def _first_match(http: HttpClient, probes: Iterable[Probe], *, likely: bool = False) -> DetectedServer | None:
    """Run all probes at the same time, and return the first match in their order."""
    results = await asyncio.gather(*(_run(http, probe, likely) for probe in probes), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return next((result for result in results if isinstance(result, DetectedServer)), None)


async def _run(http: HttpClient, probe: Probe, likely: bool) -> DetectedServer | None:
    if probe.refusal:
        return DetectedServer(probe.kind) if await _refuses(http, probe, likely) else None
    response = await _get_first(http, probe.paths, probe.shape, likely)
    if response is None:
        return None
    if probe.version_paths:
        response = await _get_first(http, probe.version_paths, probe.version_shape, likely=False)
    return DetectedServer(probe.kind, getattr(response, "version", ""))


async def _get_first(http: HttpClient, paths: Iterable[str], shape: Any, likely: bool) -> Any:
    """Return the first response of this shape from `paths`, or None.

    Raises NodeLost, and for a `likely` type all other errors: that a server requires a key (llama-server does for all
    paths except its models), or is failing, does not make it another type of server.
    """
    for path in paths:
        try:
            return msgspec.convert(await http.get(path), shape)
        except (*_UNKNOWN_PATH, msgspec.ValidationError):
            continue
        except SubnetError as error:
            if likely or isinstance(error, NodeLost):
                raise
    return None


async def _refuses(http: HttpClient, probe: Probe, likely: bool) -> bool:
    """Return whether the server refuses an empty object as the type of `probe` does. Raises the same errors."""
    try:
        await http.post(probe.paths[0], {})
    except SubnetError as error:
        if probe.refusal in error.message:
            return True
        if isinstance(error, NodeLost) or (likely and not isinstance(error, _UNKNOWN_PATH)):
            raise
    return False


async def _list_models(http: HttpClient) -> list[_Model]:
    """Return the server's models. Raises NodeError or RequestError."""
    body = await http.get("/v1/models")
    # Together sends the list itself.
    body = {"data": body} if isinstance(body, list) else body
    try:
        return msgspec.convert(body, _ModelList).data or []
    except msgspec.ValidationError as error:
        raise WireError(f"{http.peer} returned an unrecognised model list") from error
