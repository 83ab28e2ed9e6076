"""What a gateway can be told: the one table that help, checks and the README's settings come from."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from adapter.decode.parsers import FORMATS, NONE, REASONING, named
from subnet.client.policies import PolicyName
from subnet.errors import SettingsError
from subnet.settings import SettingsReader
from subnet.upstream.spec import NodeSpec

_Count = Annotated[int, Meta(ge=1)]
_Seconds = Annotated[float, Meta(gt=0)]
_Name = Annotated[str, Meta(min_length=1)]
_SECRETS = ("secret", "api_keys")
_FORMS = (
    f"model=calls or model=calls/reasoning, with calls one of {', '.join([*FORMATS, NONE])}"
    f" and reasoning one of {', '.join([*REASONING, NONE])}"
)


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds for one model. Times are in seconds; None: as for all."""

    first_token_timeout: _Seconds | None = None
    inter_token_timeout: _Seconds | None = None
    attempt_timeout: _Seconds | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Raises SettingsError for aliases that go round in a circle, and for two nodes of one name."""

    host: Annotated[str, Meta(min_length=1, description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port to listen on; 0 takes a free one")] = 8000
    workers: Annotated[int, Meta(ge=1, le=256, description="gateway processes behind the one address")] = 1
    nodes: Annotated[
        tuple[NodeSpec, ...], Meta(description="addresses of the nodes to use; a kind may lead: vllm=http://gpu-1:8000")
    ] = ()
    aliases: Annotated[dict[_Name, _Name], Meta(description="other names of models, as name=model")] = {}
    fallbacks: Annotated[
        dict[_Name, tuple[_Name, ...]],
        Meta(description="models to be asked instead, in order, when a model cannot answer, as model=other,other"),
    ] = {}
    default_model: Annotated[_Name | None, Meta(description="model for requests that name one nobody serves")] = None
    models: Annotated[dict[_Name, ModelSpec], Meta(description="timeouts of single models")] = {}
    secret: Annotated[str | None, Meta(description="secret that gateway and nodes share")] = None
    api_keys: Annotated[
        tuple[_Name, ...], Meta(description="keys of which a client must bring one; none: all are served")
    ] = ()
    first_token_timeout: Annotated[
        float, Meta(gt=0, description="seconds to wait for a first token, beyond what the prompt's length explains")
    ] = 10.0
    prefill_rate: Annotated[
        float, Meta(gt=0, description="prompt tokens a second that the slowest node gets through")
    ] = 50.0
    inter_token_timeout: Annotated[float, Meta(gt=0, description="seconds to wait between two tokens")] = 5.0
    chat_first_token_timeout: Annotated[
        float, Meta(gt=0, description="the same on the chat lane, where a server may think unseen")
    ] = 120.0
    chat_inter_token_timeout: Annotated[
        float, Meta(gt=0, description="seconds to wait between two pieces on the chat lane")
    ] = 30.0
    max_attempts: Annotated[_Count, Meta(description="attempts to make without any new token")] = 4
    retry_timeout: Annotated[float, Meta(gt=0, description="seconds to go on trying without any new token")] = 60.0
    queue_timeout: Annotated[
        float, Meta(ge=0, description="seconds to wait for room on a full node, or for a lost one to come back")
    ] = 10.0
    policy: Annotated[PolicyName, Meta(description="how the node for a request is chosen")] = "round-robin"
    health_check_timeout: Annotated[
        float, Meta(gt=0, description="seconds in which a node must say how it is; it is asked every 2 s")
    ] = 3.0
    hedge_quantile: Annotated[
        float,
        Meta(
            ge=0, lt=1, description="ask a second node when a first token is later than this share of recent; 0: never"
        ),
    ] = 0.0
    hedge_share: Annotated[
        float, Meta(ge=0, le=1, description="share of requests for which a second node may be asked")
    ] = 0.1
    max_body: Annotated[int, Meta(ge=1024, description="bytes of the largest request taken")] = 8 * 1024 * 1024
    default_max_tokens: Annotated[
        _Count | None, Meta(description="length of an answer whose request names none; none: what the context holds")
    ] = None
    strict: Annotated[bool, Meta(description="refuse parameters that nobody knows")] = False
    reasoning_field: Annotated[
        Literal["reasoning_content", "reasoning", "both"], Meta(description="where an answer has its reasoning")
    ] = "reasoning_content"
    tool_format: Annotated[
        tuple[str, ...],
        Meta(description="how a model writes calls and reasoning, as model=calls/reasoning, or model=calls"),
    ] = ()
    allow_chat_template: Annotated[bool, Meta(description="a request may bring its own chat template")] = False
    cors_origins: Annotated[tuple[str, ...], Meta(description="web origins whose pages may call, or *")] = ()
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="least level that is logged")
    ] = "info"
    access_log: Annotated[bool, Meta(description="one line for every request")] = True
    model: Annotated[str | None, Meta(description="`up`: a GGUF file, or owner/repo:file.gguf")] = None
    engine: Annotated[
        Literal["llama.cpp", "transformers", "echo"], Meta(description="`up`: what runs the model in the local nodes")
    ] = "llama.cpp"
    local_nodes: Annotated[int, Meta(ge=1, le=64, description="`up`: how many nodes to start here")] = 2
    concurrency: Annotated[_Count, Meta(description="`up`: answers that a local node writes at once")] = 4
    context_length: Annotated[_Count | None, Meta(description="`up`: tokens of context; none: the model's own")] = None
    threads: Annotated[
        _Count | None, Meta(description="`up`: threads of a local node; none: its share of the cores")
    ] = None

    def __post_init__(self) -> None:
        _check_names(self.aliases)
        peers: dict[str, NodeSpec] = {}
        for node in self.nodes:
            if peers.setdefault(node.peer, node) != node:
                raise SettingsError(f"nodes: {node.peer} is there twice, and not the same: give one a name of its own")

    def tool_formats(self) -> dict[str, str]:
        """How models write tool calls, by model: what `tool_format` says, "calls" or "calls/reasoning". Raises
        SettingsError."""
        found = {}
        for entry in self.tool_format:
            model, _, text = entry.rpartition("=")
            if not model or not _is_format(text):
                raise SettingsError(f"--tool-format {entry}: expected {_FORMS}")
            found[model] = text
        return found

    def __repr__(self) -> str:
        hidden = {name: "***" for name in _SECRETS if getattr(self, name)}
        values = msgspec.structs.asdict(self) | hidden
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in values.items())})"


def _check_names(aliases: Mapping[str, str]) -> None:
    try:
        TopologicalSorter({name: [model] for name, model in aliases.items()}).prepare()
    except CycleError as error:
        raise SettingsError(f"aliases go round in a circle: {' -> '.join(error.args[1][::-1])}") from error


def _is_format(text: str) -> bool:
    try:
        named(text)
    except ValueError:
        return False
    return True


reader = SettingsReader(Settings, "ADAPTER_", "adapter.toml")
load = reader.load
