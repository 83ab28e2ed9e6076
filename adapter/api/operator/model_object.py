"""Description of a model in the list of models, in the fields that clients of different servers read."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET, UnsetType

from adapter.api.operator.types import ModelArchitecture, ModelCapabilities, ModelMeta, ModelObject
from adapter.generation.model_format import FoundFormat
from adapter.generation.model_registry import ModelRegistry
from subnet.node_info import Capabilities, ModelCard

# Names as in OpenRouter's list of models.
_PARAMETERS = ("max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "seed")
_TOOL_PARAMETERS = ("tools", "tool_choice", "parallel_tool_calls")
_GRAMMAR_PARAMETERS = ("response_format", "structured_outputs")
_BY_CAPABILITY = {
    "top_k": ("top_k",),
    "min_p": ("min_p",),
    "typical_p": ("typical_p",),
    "penalties": ("frequency_penalty", "presence_penalty", "repetition_penalty"),
    "logit_bias": ("logit_bias",),
    "min_tokens": ("min_tokens",),
    "ignore_eos": ("ignore_eos",),
    "top_logprobs": ("logprobs", "top_logprobs"),
    "grammars": _GRAMMAR_PARAMETERS,
}


def model_object(name: str, card: ModelCard, models: ModelRegistry, started: int) -> ModelObject:
    """Return the description of the model of `card` under `name`. `started` is the time for models without one.

    The context length is read as `max_model_len` (vLLM) by Cline, pi and others, `context_length` (OpenRouter) by Roo
    Code, `context_window` (Groq), `max_context_length` (Mistral, LM Studio), and `meta.n_ctx` (llama.cpp). Modalities
    and parameters are OpenRouter's, capabilities are Mistral's.
    """
    found, nodes = models.found_format(card), models.capabilities(card)
    length = card.context_length or UNSET
    return ModelObject(
        id=name,
        created=card.created or started,
        max_model_len=length,
        context_length=length,
        context_window=length,
        max_context_length=length,
        meta=UNSET if length is UNSET else ModelMeta(n_ctx=length),
        architecture=_architecture(card),
        supported_parameters=_parameters(card, found, nodes),
        capabilities=ModelCapabilities(
            function_calling=_or_unset(_tools(card, found)),
            vision=_vision(card),
            reasoning=_or_unset(_reasoning(card, found)),
            embeddings=any(node.embeddings for node in nodes) if nodes else UNSET,
        ),
        has_chat_template=None if card.lane == "chat" else card.chat_template is not None,
        tool_format=UNSET if found is None else found.tools,
        reasoning=UNSET if found is None else found.reasoning,
    )


def _architecture(card: ModelCard) -> ModelArchitecture | UnsetType:
    # Few servers of the chat lane say what their models accept.
    if card.lane == "chat" and not card.modalities:
        return UNSET
    return ModelArchitecture(input_modalities=["text", *card.modalities])


def _vision(card: ModelCard) -> bool | UnsetType:
    return UNSET if card.lane == "chat" and not card.modalities else "image" in card.modalities


def _tools(card: ModelCard, found: FoundFormat | None) -> bool | None:
    if card.lane == "chat":
        return card.tools
    return None if found is None else not found.refuses_tools


def _reasoning(card: ModelCard, found: FoundFormat | None) -> bool | None:
    if card.lane == "chat":
        return card.reasoning
    return None if found is None else found.reasoning is not None


def _parameters(card: ModelCard, found: FoundFormat | None, nodes: Sequence[Capabilities]) -> list[str] | UnsetType:
    if card.lane == "chat":
        return list(card.parameters) or UNSET
    if found is None:
        return UNSET
    names = list(_PARAMETERS)
    for capability, parameters in _BY_CAPABILITY.items():
        if any(getattr(node, capability) for node in nodes):
            names += parameters
    return [*names, *(() if found.refuses_tools else _TOOL_PARAMETERS)]


def _or_unset(value: bool | None) -> bool | UnsetType:
    return UNSET if value is None else value
