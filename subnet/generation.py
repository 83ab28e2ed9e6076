"""Requests to engines and the tokens that they return, the same on every protocol."""

from __future__ import annotations

from hashlib import blake2b
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from subnet.node_info import Capabilities, GrammarKind
from subnet.tensors import TokenIds

FinishReason = Literal["stop", "length"]

# More than any vocabulary or use of them needs; a node refuses more before it decodes them.
_MAX_BIASES = 2**18
_MAX_STOP_TOKENS = 2**16


class Grammar(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Constraint that the whole output must match.

    `text` is a JSON schema as JSON text, a regular expression in the syntax of Rust's regex crate, or a grammar in
    llguidance's dialect of Lark (https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md).
    """

    kind: GrammarKind
    text: str


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sampling parameters. The defaults are OpenAI's, and override the engine's own.

    The session always sets a `seed` before it sends a request to a node. Each choice `i` has its own random stream,
    derived from (seed, i). A token in `stop_tokens` ends a choice with "stop" and is not delivered, like the model's
    own end-of-generation tokens (which `ignore_eos` disables). `typical_p` below 1 enables locally typical sampling
    (https://arxiv.org/abs/2202.00666). `logprobs` None: no logprobs; k: those of each token and of its k most likely
    alternatives.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    typical_p: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Annotated[dict[int, float], Meta(max_length=_MAX_BIASES)] = {}
    max_tokens: int | None = None
    min_tokens: int = 0
    seed: int | None = None
    stop_tokens: Annotated[tuple[int, ...], Meta(max_length=_MAX_STOP_TOKENS)] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    grammar: Grammar | None = None


class Need(NamedTuple):
    """Optional feature of an engine that a request needs because of its parameter `param`.

    `capability` is a field of Capabilities: a number or True, which must be at least `level`, or a list that must
    include it.
    """

    param: str
    capability: str
    level: int | GrammarKind = True

    def is_met(self, capabilities: Capabilities) -> bool:
        """Return whether an engine with `capabilities` has the feature."""
        offered = getattr(capabilities, self.capability)
        return bool(self.level in offered if isinstance(offered, tuple) else offered >= self.level)


Needs = tuple[Need, ...]

_LOGPROBS = Need("logprobs", "top_logprobs", 1)
_TOP_K, _MIN_P, _TYPICAL_P = Need("top_k", "top_k"), Need("min_p", "min_p"), Need("typical_p", "typical_p")
_FREQUENCY, _PRESENCE, _REPETITION = (
    Need(f"{name}_penalty", "penalties") for name in ("frequency", "presence", "repetition")
)
_LOGIT_BIAS, _MIN_TOKENS = Need("logit_bias", "logit_bias"), Need("min_tokens", "min_tokens")
_IGNORE_EOS = Need("ignore_eos", "ignore_eos")


def needs_of(sampling: Sampling) -> Needs:
    """Return the optional features that `sampling` needs, in the order in which engines reject them."""
    if _optional_values(sampling) == _NO_OPTIONS:
        return ()
    used = [
        (_TOP_K, sampling.top_k > 0),
        (_MIN_P, sampling.min_p != 0),
        (_TYPICAL_P, sampling.typical_p != 1),
        (_FREQUENCY, sampling.frequency_penalty != 0),
        (_PRESENCE, sampling.presence_penalty != 0),
        (_REPETITION, sampling.repetition_penalty != 1),
        (_LOGIT_BIAS, bool(sampling.logit_bias)),
        (_MIN_TOKENS, sampling.min_tokens != 0),
        (_IGNORE_EOS, sampling.ignore_eos),
    ]
    needs = [need for need, is_used in used if is_used]
    if sampling.logprobs is not None:
        needs[:0] = [_LOGPROBS, Need("top_logprobs", "top_logprobs", sampling.logprobs)]
    if sampling.grammar is not None:
        needs.append(Need("grammar", "grammars", sampling.grammar.kind))
    return tuple(needs)


def _optional_values(sampling: Sampling) -> tuple[object, ...]:
    """Return the values of the parameters that need optional features."""
    return (
        sampling.top_k,
        sampling.min_p,
        sampling.typical_p,
        sampling.frequency_penalty,
        sampling.presence_penalty,
        sampling.repetition_penalty,
        sampling.logit_bias,
        sampling.min_tokens,
        sampling.ignore_eos,
        sampling.logprobs,
        sampling.grammar,
    )


# Those of most requests.
_NO_OPTIONS = _optional_values(Sampling())


def are_met(needs: Needs, capabilities: Capabilities) -> bool:
    """Return whether an engine with `capabilities` has all the features in `needs`."""
    return all(need.is_met(capabilities) for need in needs)


MIN_LOGPROB = -9999.0
"""Stands for minus infinity: vLLM sends it, and OpenAI for logprobs that were not computed."""


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Natural-log probabilities of one token, before temperature and truncation.

    `top_ids` and `top_logprobs` are equally long, likeliest first. All logprobs are finite, see MIN_LOGPROB.
    """

    logprob: float
    top_ids: tuple[int, ...] = ()
    top_logprobs: tuple[float, ...] = ()


class Delta(msgspec.Struct, gc=False):
    """New tokens of one choice.

    `logprobs` is None, or as long as `tokens`. `finish_reason` is set on the last delta of a choice, which may also
    have tokens. Tokens that end the generation (end of turn, stop tokens) are never in `tokens`.
    """

    choice: int
    tokens: list[int]
    logprobs: list[TokenLogprobs] | None = None
    finish_reason: FinishReason | None = None
    cached_tokens: int = 0


class Start(msgspec.Struct, frozen=True):
    """Starting point of one choice: `delivered` (int32, one-dimensional) are the tokens it already has.

    `position` is the number of its tokens that are the end of the prompt, if it continues an answer that way.
    """

    choice: int
    delivered: TokenIds
    position: int = 0


class Job(msgspec.Struct, frozen=True):
    """One generation, as an engine receives it.

    `prompt` is int32, one-dimensional and not empty. A choice in `starts` that has `delivered` tokens continues after
    them: they count towards `sampling.max_tokens` and penalties, are not delivered again, and the next token is sampled
    as if the run had never been interrupted. Only engines whose capability `resume` is "exact" receive such jobs.
    """

    prompt: TokenIds
    sampling: Sampling
    starts: tuple[Start, ...]


class RequestSize(msgspec.Struct, frozen=True):
    """Size of a request in tokens: those of the prompt, of the answer so far, and the new ones requested."""

    prompt: int = 0
    delivered: int = 0
    requested: int = 0


NO_SIZE = RequestSize()
"""Size of a request whose tokens are not known."""


def derive_seed(seed: int | None, choice: int, position: int = 0, bits: int = 63) -> int:
    """Derive a seed of `bits` bits for the draws of a choice from a position on.

    It is deterministic, and differs between seeds, choices and positions.
    """
    text = f"{seed or 0} {choice} {position}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest()) >> (64 - bits)
