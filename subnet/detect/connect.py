"""From what stands at an address to the protocol it is spoken to with."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from subnet.authorizers import AuthorizerBase
from subnet.detect.detect import Found, Unsuitable
from subnet.detect.probes import TITLES
from subnet.engines.base import Engine
from subnet.errors import SettingsError
from subnet.http.node_spec import Kind, NodeSpec
from subnet.node_info import NodeInfo
from subnet.protocols.base import Protocol
from subnet.protocols.in_process import DirectProtocol
from subnet.protocols.openai import OpenAIProtocol
from subnet.protocols.websocket import WebSocketProtocol

_TAKES_TOKENS: tuple[Kind, ...] = ("vllm", "sglang", "llama-server")
_SHOWN = 3


class Reached(NamedTuple):
    """`why` it is on the chat lane, "" where there is no other way to speak to it, or it is not."""

    protocol: Protocol
    info: NodeInfo
    why: str = ""


async def reach(spec: NodeSpec, found: Found, authorizer: AuthorizerBase | None = None) -> Reached:
    """On the token lane if that can be had. Raises NodeError where it does not answer, Unsuitable
    where it cannot on the lane that `spec` wants.
    """
    if found.kind == "subnet":
        if spec.lane == "chat":
            raise Unsuitable(f"{spec.peer}: not used, because lane is set to chat: subnet nodes accept token ids only")
        url = spec.url.rstrip("/").removesuffix("/v1")
        return await _answering(WebSocketProtocol(url, authorizer, connect_timeout=spec.connect_timeout))
    why = _obstacle(spec, found)
    if not why:
        try:
            return await _answering(DirectProtocol(_engine(spec, found.kind), spec.peer))
        except SettingsError as error:
            why = error.message
    if spec.lane == "token":
        raise Unsuitable(f"{spec.peer}: not used, because lane is set to token: {why}")
    return await _answering(OpenAIProtocol(msgspec.structs.replace(spec, kind=found.kind)), why)


def told(spec: NodeSpec, found: Found, reached: Reached) -> str:
    """One line for a person."""
    info, why = reached.info, reached.why
    version = info.version if found.kind == "subnet" else found.version
    names = [card.id for card in info.cards]
    models = ", ".join(names[:_SHOWN]) or "no models yet"
    more = f" (and {len(names) - _SHOWN} more)" if len(names) > _SHOWN else ""
    lane = "chat" if isinstance(reached.protocol, OpenAIProtocol) else "token"
    line = f"{spec.peer}: {TITLES[found.kind]} {version}".rstrip() + f", serves {models}{more}, {lane} lane"
    # Servers are not trusted with a terminal.
    return "".join(char if char.isprintable() else "?" for char in (f"{line}: {why}" if why else line))


def _obstacle(spec: NodeSpec, found: Found) -> str:
    """Why it can only be on the chat lane, as far as that is known without asking for its tokenizer."""
    if spec.lane == "chat":
        return "as configured"
    if found.kind not in _TAKES_TOKENS:
        return "it does not accept token ids"
    if spec.modalities:
        return "it accepts input other than text"
    if len(spec.models or found.models) > 1:
        return "it serves several models"
    return ""


def _engine(spec: NodeSpec, kind: Kind) -> Engine:
    """Raises SettingsError."""
    # Only here: who has chat servers only needs no tokenizers.
    if kind == "vllm":
        from subnet.engines.vllm import VllmEngine

        return VllmEngine(spec)
    if kind == "sglang":
        from subnet.engines.sglang import SglangEngine

        return SglangEngine(spec)
    from subnet.engines.llama_server import LlamaServerEngine

    return LlamaServerEngine(spec)


async def _answering(protocol: Protocol, why: str = "") -> Reached:
    try:
        return Reached(protocol, await protocol.rpc_info(), why)
    except BaseException:
        await protocol.aclose()
        raise
