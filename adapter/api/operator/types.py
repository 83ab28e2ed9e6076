"""Response types of the operator endpoints. Apart from the list of models, OpenAI's API has no such endpoints."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from subnet.node_info import Capabilities, Lane
from subnet.pool.deployment import DeploymentState
from subnet.pool.node import NodeState


class Health(Struct, frozen=True, kw_only=True, omit_defaults=True):
    status: Literal["ok"]
    models: list[str] = []


class Version(Struct, frozen=True, kw_only=True):
    version: str


class Home(Struct, frozen=True, kw_only=True):
    """Home page as JSON. `version` and `models` are null if clients need an API key; `links` are paths by name."""

    name: Literal["subnet-adapter"] = "subnet-adapter"
    version: str | None
    models: list[str] | None
    links: dict[str, str]


class DeploymentRow(Struct, frozen=True, kw_only=True):
    """One model of a node. `state` is about this model alone, and `fault` the reason for it (null: healthy).

    `card` is the digest of its tokenizer, chat template and stop tokens: null on the chat lane, and until it was read.
    `weights` is the beginning of the fingerprint of its weights (null: unknown). `tool_format` and `reasoning` are the
    formats in which it writes tool calls and reasoning (null: none), or "unknown"; missing like `card`.
    """

    model: str
    state: DeploymentState
    fault: str | None
    priority: int
    weight: float
    card: str | None = None
    weights: str | None = None
    tool_format: str | UnsetType | None = UNSET
    reasoning: str | UnsetType | None = UNSET


class NodeRow(Struct, frozen=True, kw_only=True):
    """A node and its state, as seen by this gateway.

    `peer` is its address. `state` holds since `since` (Unix time in seconds); `fault` is the reason why the node gets
    no requests, or fewer of them (null: healthy). `requests` counts this gateway's requests running on it. The fields
    from `node_id` on are from the node's last health check, null before the first. `model` is the first of `models`;
    `deployments` has their states.
    """

    peer: str
    state: NodeState
    since: int
    fault: str | None
    requests: int
    node_id: str | None = None
    version: str | None = None
    engine: str | None = None
    model: str | None = None
    models: list[str] | None = None
    deployments: list[DeploymentRow] | None = None
    lane: Lane | None = None
    context_length: int | None = None
    capacity: int | None = None
    running: int | None = None
    draining: bool | None = None
    process: int | None = None
    capabilities: Capabilities | None = None


class NodeTable(Struct, frozen=True, kw_only=True):
    """All nodes. `time` is the time of the response by the gateway's clock (Unix time in seconds)."""

    time: int
    nodes: list[NodeRow]


class ModelMeta(Struct, frozen=True, kw_only=True):
    n_ctx: int


class ModelArchitecture(Struct, frozen=True, kw_only=True):
    input_modalities: list[str]
    output_modalities: tuple[str, ...] = ("text",)


class ModelCapabilities(Struct, frozen=True, kw_only=True):
    """What a model can do; missing: not known."""

    completion_chat: bool = True
    function_calling: bool | UnsetType = UNSET
    vision: bool | UnsetType = UNSET
    reasoning: bool | UnsetType = UNSET
    embeddings: bool | UnsetType = UNSET


class ModelObject(Struct, frozen=True, kw_only=True):
    """Model as in OpenAI's API, with its `tool_format` and `reasoning` as in DeploymentRow. `has_chat_template` is
    false for a model without one, which is probably a base model, and null if its server applies the template.

    Clients read the context length in tokens by the name that the server has which they were written for. What is not
    known is missing.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "subnet"
    max_model_len: int | UnsetType = UNSET
    context_length: int | UnsetType = UNSET
    context_window: int | UnsetType = UNSET
    max_context_length: int | UnsetType = UNSET
    meta: ModelMeta | UnsetType = UNSET
    architecture: ModelArchitecture | UnsetType = UNSET
    supported_parameters: list[str] | UnsetType = UNSET
    capabilities: ModelCapabilities
    tool_format: str | UnsetType | None = UNSET
    reasoning: str | UnsetType | None = UNSET
    has_chat_template: bool | None = None


class ModelList(Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[ModelObject]
