"""Settings of a gateway. Its flags, help, checks and reference are generated from them."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from subnet.config import SettingsReader
from subnet.errors import SettingsError
from subnet.http.loopback import is_loopback
from subnet.http.node_spec import AttemptTimeout, FirstTokenTimeout, InterTokenTimeout, NodeSpec
from subnet.pool.policies import PolicyName

_Count = Annotated[int, Meta(ge=1)]
_Name = Annotated[str, Meta(min_length=1)]
_SECRETS = ("secret", "api_keys")


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one model. Timeouts are in seconds; None: the gateway's settings."""

    card: Annotated[
        Annotated[str, Meta(pattern="^[0-9a-f]{16}$")] | None,
        Meta(
            description="digest of the tokenizer, chat template and stop tokens that nodes must have, as printed by"
            " `adapter nodes`; default: those of the nodes that name the model in `models`, or of the first node",
        ),
    ] = None
    first_token_timeout: FirstTokenTimeout = None
    inter_token_timeout: InterTokenTimeout = None
    attempt_timeout: AttemptTimeout = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a gateway.

    Raises SettingsError for aliases that form a cycle, for two nodes with one name, and for an unknown tool format.
    """

    host: Annotated[str, Meta(min_length=1, description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port to listen on; 0: any free port")] = 8000
    workers: Annotated[int, Meta(ge=1, le=256, description="number of gateway processes")] = 1
    nodes: Annotated[
        tuple[NodeSpec, ...],
        Meta(
            description="addresses of nodes or upstream servers; the type may come first: vllm=http://gpu-1:8000",
            extra={"metavar": "URL"},
        ),
    ] = ()
    aliases: Annotated[dict[_Name, _Name], Meta(description="additional names of models, as name=model")] = {}
    fallback_continues: Annotated[
        bool,
        Meta(
            description="let a fallback continue an interrupted answer that it does not repeat: the answer then has the"
            " words of two models"
        ),
    ] = False
    fallbacks: Annotated[
        dict[_Name, tuple[_Name, ...]],
        Meta(description="models to try, in order, when a model cannot answer, as model=other,other"),
    ] = {}
    default_model: Annotated[
        _Name | None, Meta(description="model that answers requests for unknown models; if not set: they get a 404")
    ] = None
    models: Annotated[
        dict[_Name, ModelSpec], Meta(description="settings of individual models: timeouts, and the card")
    ] = {}
    secret: Annotated[str | None, Meta(description="secret shared with the subnet nodes (HMAC-SHA256)")] = None
    max_clock_skew: Annotated[
        float,
        Meta(gt=0, le=86400, description="maximum difference between the clocks of nodes and gateways, in seconds"),
    ] = 60.0
    api_keys: Annotated[
        tuple[_Name, ...],
        Meta(description="API keys of clients; if not set: clients need no key", extra={"metavar": "KEY"}),
    ] = ()
    insecure: Annotated[
        bool,
        Meta(
            description="start without `api_keys` on an address beyond loopback although the settings hold API keys of"
            " upstream servers: everyone who can reach it uses them"
        ),
    ] = False
    first_token_timeout: Annotated[
        float,
        Meta(gt=0, description="maximum seconds to the first token, plus prompt tokens / prefill_rate"),
    ] = 10.0
    prefill_rate: Annotated[
        float, Meta(gt=0, description="prompt tokens per second that the slowest node can process")
    ] = 50.0
    inter_token_timeout: Annotated[
        float, Meta(gt=0, description="maximum time between two tokens, in seconds; then another node takes over")
    ] = 5.0
    chat_first_token_timeout: Annotated[
        float,
        Meta(
            gt=0,
            description="first_token_timeout for servers that accept only messages (chat lane); they may reason without"
            " sending anything",
        ),
    ] = 120.0
    chat_inter_token_timeout: Annotated[
        float, Meta(gt=0, description="inter_token_timeout for servers that accept only messages (chat lane)")
    ] = 30.0
    keep_alive_timeout: Annotated[
        float,
        Meta(
            gt=0,
            description="how long these timeouts are extended while the server shows that it works on the request or"
            " has it in its queue, in seconds",
        ),
    ] = 600.0
    sse_keep_alive: Annotated[
        float,
        Meta(
            ge=0,
            description="maximum seconds without output in a streamed answer: then a comment is sent, and before it the"
            " head of the response; 0: no limit",
        ),
    ] = 15.0
    answer_timeout: Annotated[
        float,
        Meta(gt=0, description="maximum time for a whole answer, over all attempts and fallbacks, in seconds"),
    ] = 86_400.0
    max_attempts: Annotated[_Count, Meta(description="maximum number of attempts in a row without a new token")] = 4
    retry_timeout: Annotated[
        float, Meta(gt=0, description="maximum time for retries without a new token, in seconds")
    ] = 60.0
    max_total_attempts: Annotated[
        _Count, Meta(description="maximum number of attempts for one answer in all, even if each brings a token")
    ] = 16
    failover_timeout: Annotated[
        float, Meta(gt=0, description="maximum time from the first failure to the next new token, in seconds")
    ] = 45.0
    max_retry_after: Annotated[
        float,
        Meta(ge=0, description="longest Retry-After of a full model that is waited for before its fallback is asked"),
    ] = 3.0
    queue_timeout: Annotated[
        float,
        Meta(ge=0, description="maximum time a request waits for capacity or for an unreachable node, in seconds"),
    ] = 10.0
    policy: Annotated[
        PolicyName | None,
        Meta(
            description="routing policy: how nodes are chosen for requests; "
            "by default `prefix-affinity` with `adapter up`, else `round-robin`"
        ),
    ] = None
    health_check_timeout: Annotated[
        float,
        Meta(
            gt=0,
            description="timeout of a health check, in seconds; nodes are checked every 2 s, servers on the chat lane"
            " every 30 s or after a lost connection",
        ),
    ] = 3.0
    hedge_quantile: Annotated[
        float,
        Meta(
            ge=0,
            lt=1,
            description="ask a second node when the first token takes longer than this quantile of recent ones; 0: off",
        ),
    ] = 0.0
    hedge_share: Annotated[
        float, Meta(ge=0, le=1, description="maximum share of requests for which a second node is asked")
    ] = 0.1
    max_body: Annotated[int, Meta(ge=1024, description="maximum size of a request body, in bytes")] = 8 * 1024 * 1024
    max_head: Annotated[
        int,
        Meta(
            ge=1024,
            description="maximum size of a request's URL and headers, in bytes, and of its body's trailers and chunk"
            " extensions",
        ),
    ] = 64 * 1024
    max_fields: Annotated[
        int, Meta(ge=10, description="maximum number of header fields of a request, trailers included")
    ] = 100
    max_connections: Annotated[
        _Count | None,
        Meta(
            description="maximum number of connections of each worker; beyond it, idle ones are closed, and if there"
            " are none, new ones get a 503; default: three quarters of the file descriptors that the process may open,"
            " at most 16384"
        ),
    ] = None
    max_waiting: Annotated[
        _Count, Meta(description="maximum number of requests of each worker that wait for capacity; beyond it: 503")
    ] = 2000
    max_request_memory: Annotated[
        int,
        Meta(
            ge=1024,
            description="maximum size of the bodies of all running requests of each worker, in bytes; beyond it: 503",
        ),
    ] = 1024 * 1024 * 1024
    max_client_share: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="share of `max_connections`, `max_waiting` and `max_request_memory` that one client may use;"
            " beyond it: 429. Clients are told apart by API key, or without one by address",
        ),
    ] = 0.5
    client_idle_timeout: Annotated[
        float,
        Meta(
            gt=0,
            description="how long a client's connection without a request is kept open, in seconds; a reverse proxy"
            " must close its own earlier",
        ),
    ] = 75.0
    shutdown_delay: Annotated[
        float,
        Meta(
            ge=0,
            description="time between the signal to shut down and the end of an idle gateway, in seconds: `/readyz` is"
            " 503 and requests are still served, so that load balancers notice",
        ),
    ] = 0.0
    drain_timeout: Annotated[
        float, Meta(ge=0, description="time that running requests get to finish on shutdown, in seconds")
    ] = 30.0
    default_max_tokens: Annotated[
        _Count | None, Meta(description="max_tokens for requests without it; if not set: the rest of the context")
    ] = None
    max_tokens_overflow: Annotated[
        Literal["bound", "refuse"],
        Meta(
            description="what to do if `max_tokens` is more than the prompt leaves of the context: bound the answer, or"
            " refuse the request with a 400, as OpenAI does"
        ),
    ] = "bound"
    strict: Annotated[
        bool,
        Meta(
            description="reject what OpenAI rejects, though it could be served: unknown parameters and members, and"
            " tool calls and results that do not match"
        ),
    ] = False
    reasoning_field: Annotated[
        Literal["reasoning_content", "reasoning", "both"], Meta(description="field of a message that holds reasoning")
    ] = "reasoning_content"
    tool_format: Annotated[
        tuple[str, ...],
        Meta(
            description="format of tool calls and reasoning, as model=calls or model=calls/reasoning",
            extra={"metavar": "MODEL=FORMAT"},
        ),
    ] = ()
    allow_chat_template: Annotated[bool, Meta(description="allow requests to bring their own chat template")] = False
    cors_origins: Annotated[
        tuple[str, ...],
        Meta(
            description="origins of web pages that may call from a browser, such as https://chat.example or"
            " chrome-extension://*; * for all; null for pages without an origin, such as files: any website can send"
            " that. Without `api_keys`, pages from this machine and desktop apps may always call",
            extra={"metavar": "ORIGIN"},
        ),
    ] = ()
    allowed_hosts: Annotated[
        tuple[str, ...],
        Meta(
            description="host names in requests to a gateway without `api_keys` on a loopback address, besides"
            " localhost and loopback addresses; * for all. Others are refused: websites can let their names resolve to"
            " this machine",
            extra={"metavar": "NAME"},
        ),
    ] = ("host.docker.internal", "host.containers.internal")
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="minimum log level")] = "info"
    access_log: Annotated[bool, Meta(description="log one line per request")] = True
    model: Annotated[
        str | None, Meta(description="`up`: model of the local nodes, a GGUF file or owner/repo:file.gguf")
    ] = None
    tokenizer: Annotated[
        str | None,
        Meta(description="`up`: tokenizer.json for the local nodes, in place of the one in the model's GGUF file"),
    ] = None
    engine: Annotated[
        Literal["llama.cpp", "transformers", "echo"], Meta(description="`up`: engine of the local nodes")
    ] = "llama.cpp"
    local_nodes: Annotated[int, Meta(ge=1, le=64, description="`up`: number of local nodes")] = 2
    concurrency: Annotated[_Count, Meta(description="`up`: maximum number of answers at once on each local node")] = 4
    context_length: Annotated[
        _Count | None,
        Meta(description="`up`: context length in tokens; default: the model's maximum; for GGUF files at most 8,192"),
    ] = None
    threads: Annotated[
        _Count | None, Meta(description="`up`: threads of each local node; default: an equal share of the cores")
    ] = None

    def __post_init__(self) -> None:
        _check_cycles(self.aliases)
        peers: dict[str, NodeSpec] = {}
        for node in self.nodes:
            if peers.setdefault(node.peer, node) != node:
                raise SettingsError(
                    f"nodes: {node.peer} is given twice with different settings; set `name` for one of them"
                )
        self.tool_formats()

    def tool_formats(self) -> dict[str, str]:
        """Return the tool format of each model, as "calls" or "calls/reasoning". Raises SettingsError."""
        if not self.tool_format:
            return {}
        from adapter.tools import FORMATS, NONE, REASONING, parse_format_name

        found = {}
        for entry in self.tool_format:
            model, _, text = entry.rpartition("=")
            try:
                parse_format_name(text)
            except ValueError:
                model = ""
            if not model:
                raise SettingsError(
                    f"tool_format: expected model=calls or model=calls/reasoning, got {entry!r};"
                    f" calls is one of {', '.join([*FORMATS, NONE])},"
                    f" reasoning is one of {', '.join([*REASONING, NONE])}"
                )
            found[model] = text
        return found

    def exposure(self) -> str | None:
        """Return a warning if strangers can use the gateway; None if it needs API keys, or listens on loopback only.

        Raises SettingsError if they would use API keys of others with it, unless the operator wants that.
        """
        if self.api_keys or is_loopback(self.host):
            return None
        risk = f"everyone who can reach {self.host} may use this gateway, because api_keys is not set"
        holders = [node.peer for node in self.nodes if node.has_key]
        if holders and not self.insecure:
            raise SettingsError(
                f'host: {risk}, and with it the API key of {", ".join(holders)}; set api_keys, or host = "127.0.0.1";'
                " to start all the same: --insecure"
            )
        return f"WARNING: {risk}"

    def cards(self) -> dict[str, str]:
        """Return the digest that the cards of nodes must have, by model."""
        return {name: spec.card for name, spec in self.models.items() if spec.card is not None}

    def promised_models(self) -> frozenset[str]:
        """Return the models that nodes are said to serve, or that have settings."""
        return frozenset(self.models).union(*(node.models for node in self.nodes))

    def __repr__(self) -> str:
        hidden = {name: "***" for name in _SECRETS if getattr(self, name)}
        values = msgspec.structs.asdict(self) | hidden
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in values.items())})"


def _check_cycles(aliases: Mapping[str, str]) -> None:
    try:
        TopologicalSorter({name: [model] for name, model in aliases.items()}).prepare()
    except CycleError as error:
        raise SettingsError(f"aliases form a cycle: {' -> '.join(error.args[1][::-1])}") from error


reader = SettingsReader(Settings, "ADAPTER_", "adapter.toml")
load = reader.load
