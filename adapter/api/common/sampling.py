"""Request parameters for sampling and output that chat and text completions share.

The ranges are those of OpenAI's published API description, and vLLM's for parameters that it does not have. A null is
the same as an absent field. parameter_table.py has OpenAI's other parameters.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from adapter.api.common.formats import Choices, Json, Pattern, ResponseFormat, StructuredOutputs

# Far more than clients need; they limit what a request costs.
MAX_LOGIT_BIASES, MAX_STOP_TOKENS, MAX_STOPS = 1024, 128, 64

MAX_INT = 2**31 - 1

Count = Annotated[int, Meta(ge=1, le=MAX_INT)]
# Some clients send the largest number that they have for "no limit"; what is above MAX_INT counts as MAX_INT.
TokenLimit = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
TokenId = Annotated[int, Meta(ge=0, le=MAX_INT)]
ModelName = Annotated[str, Meta(min_length=1)]
_Stop = Annotated[str, Meta(min_length=1)]
_Bias = Annotated[float, Meta(ge=-100, le=100)]


class StreamOptions(Struct, frozen=True, kw_only=True):
    """Options of a streamed response. `include_obfuscation` has no effect: chunks are not padded."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = None


class RoutedRequest(Struct, frozen=True, kw_only=True):
    """What the gateway itself needs of a request for text, whatever model answers it."""

    model: ModelName
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    priority: Annotated[int, Meta(ge=-MAX_INT, le=MAX_INT)] | None = None
    prompt_cache_key: str | None = None
    user: str | None = None

    @property
    def routing_key(self) -> str | None:
        """Key of requests that belong together, for routing policies that keep them on one node."""
        return self.prompt_cache_key or self.user or None

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        """True if each chunk has the usage so far; only with `include_usage`."""
        return self.include_usage and bool(self.stream_options and self.stream_options.continuous_usage_stats)


class Envelope(RoutedRequest, frozen=True, kw_only=True):
    """A request as far as the gateway itself needs it. The model decides about the rest: on the token lane the request
    must be valid as a whole, on the chat lane the server judges it.
    """

    logit_bias: Any = None
    stop_token_ids: Any = None

    @property
    def has_token_ids(self) -> bool:
        """True if a parameter other than the prompt contains token ids."""
        return bool(self.logit_bias or self.stop_token_ids)


class SamplingRequest(RoutedRequest, frozen=True, kw_only=True):
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Fraction | None = None
    top_k: Annotated[int, Meta(ge=-1, le=MAX_INT)] | None = None
    min_p: Fraction | None = None
    typical_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0)] | None = None
    logit_bias: Annotated[dict[TokenId, _Bias], Meta(max_length=MAX_LOGIT_BIASES)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=MAX_INT)] | None = None
    ignore_eos: bool | None = None
    stop: _Stop | Annotated[list[_Stop], Meta(max_length=MAX_STOPS)] | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=MAX_STOP_TOKENS)] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    echo: bool | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Json | None = None
    guided_regex: Pattern | None = None
    guided_choice: Choices | None = None
    guided_grammar: Pattern | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def has_token_ids(self) -> bool:
        """True if a parameter other than the prompt contains token ids."""
        return bool(self.logit_bias or self.stop_token_ids)

    @property
    def structured(self) -> StructuredOutputs | None:
        """`structured_outputs`, or the older parameters `guided_*` in its form."""
        older = (self.guided_json, self.guided_regex, self.guided_choice, self.guided_grammar)
        if older == (None, None, None, None):
            return self.structured_outputs
        json, regex, choice, grammar = older
        return StructuredOutputs(json=json, regex=regex, choice=choice, grammar=grammar)
