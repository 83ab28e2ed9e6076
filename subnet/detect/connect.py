"""Choice of lane and protocol for a detected server."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from subnet.authorizers import AuthorizerBase
from subnet.detect.detect import DetectedServer, UnsupportedServer
from subnet.detect.probes import TITLES
from subnet.engines.base import Engine
from subnet.errors import SettingsError
from subnet.http.node_spec import Kind, NodeSpec
from subnet.node_info import NodeInfo
from subnet.protocols.base import Protocol
from subnet.protocols.in_process import InProcessProtocol
from subnet.protocols.openai import OpenAIProtocol
from subnet.protocols.websocket import WebSocketProtocol

_ACCEPT_TOKENS: tuple[Kind, ...] = ("vllm", "sglang", "llama-server")
# Number of models named in a description.
_MAX_MODELS = 3


class ConnectedNode(NamedTuple):
    """Protocol and first info of a node. `reason` says why it is on the chat lane; "" if it is on the token lane."""

    protocol: Protocol
    info: NodeInfo
    reason: str = ""


async def connect(spec: NodeSpec, detected: DetectedServer, authorizer: AuthorizerBase | None = None) -> ConnectedNode:
    """Connect on the token lane if possible, else on the chat lane.

    With an `authorizer`, only a subnet node that proves the secret is used, unless the settings say that the address is
    that of another server.

    Raises NodeError if the server does not answer, and UnsupportedServer if it does not support the lane in `spec`, or
    is not what the address is said to be.
    """
    if detected.kind == "subnet":
        if spec.lane == "chat":
            raise UnsupportedServer(
                f"{spec.peer}: not used, because lane is set to chat: subnet nodes accept token ids only"
            )
        url = spec.url.rstrip("/").removesuffix("/v1")
        node = WebSocketProtocol(url, authorizer, models=spec.models, connect_timeout=spec.connect_timeout)
        return await _checked(node)
    if authorizer is not None and not spec.is_upstream:
        server = f"{TITLES[detected.kind]} {detected.version}".rstrip()
        raise UnsupportedServer(
            f"{spec.peer}: {server}, not used: with a secret set, an address must be that of a subnet node that proves"
            f" it. If this server is meant, give its type, as in {detected.kind}={spec.url}"
        )
    reason = _chat_lane_reason(spec, detected)
    if not reason:
        try:
            return await _checked(InProcessProtocol(_engine(spec, detected.kind), spec.peer))
        except SettingsError as error:
            reason = error.message
    if spec.lane == "token":
        raise UnsupportedServer(f"{spec.peer}: not used, because lane is set to token: {reason}")
    return await _checked(OpenAIProtocol(msgspec.structs.replace(spec, kind=detected.kind), detected.version), reason)


def describe(spec: NodeSpec, detected: DetectedServer, node: ConnectedNode) -> str:
    """Return one line for the operator: server, version, models and lane."""
    info, reason = node.info, node.reason
    version = info.version if detected.kind == "subnet" else detected.version
    names = [card.id for card in info.cards]
    models = ", ".join(names[:_MAX_MODELS]) or "no models yet"
    more = f" (and {len(names) - _MAX_MODELS} more)" if len(names) > _MAX_MODELS else ""
    lane = "chat" if isinstance(node.protocol, OpenAIProtocol) else "token"
    line = f"{spec.peer}: {TITLES[detected.kind]} {version}".rstrip() + f", serves {models}{more}, {lane} lane"
    # Servers are not trusted with a terminal.
    return "".join(char if char.isprintable() else "?" for char in (f"{line}: {reason}" if reason else line))


def _chat_lane_reason(spec: NodeSpec, detected: DetectedServer) -> str:
    """Return why only the chat lane is possible, as far as that is known without loading a tokenizer; "" if unknown."""
    if spec.lane == "chat":
        return "as configured"
    if detected.kind not in _ACCEPT_TOKENS:
        return "it does not accept token ids"
    if spec.modalities:
        return "it accepts input other than text"
    if len(spec.models or detected.models) > 1:
        return "it serves several models"
    return ""


def _engine(spec: NodeSpec, kind: Kind) -> Engine:
    """Return the engine for the token lane of a server. Raises SettingsError if its tokenizer is unavailable."""
    # Imported here, so that a gateway with chat servers only does not load the tokenizers.
    if kind == "vllm":
        from subnet.engines.vllm import VllmEngine

        return VllmEngine(spec)
    if kind == "sglang":
        from subnet.engines.sglang import SglangEngine

        return SglangEngine(spec)
    from subnet.engines.llama_server import LlamaServerEngine

    return LlamaServerEngine(spec)


async def _checked(protocol: Protocol, reason: str = "") -> ConnectedNode:
    try:
        return ConnectedNode(protocol, await protocol.rpc_info(), reason)
    except BaseException:
        await protocol.aclose()
        raise
