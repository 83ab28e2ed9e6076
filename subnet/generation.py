"""Requests to engines and the tokens that they return, the same on every protocol."""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

import msgspec

from subnet.node_info import GrammarKind
from subnet.tensors import TokenIds

FinishReason = Literal["stop", "length"]


class Grammar(msgspec.Struct, frozen=True):
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
    logit_bias: dict[int, float] = {}
    max_tokens: int | None = None
    min_tokens: int = 0
    seed: int | None = None
    stop_tokens: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    grammar: Grammar | None = None


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Natural-log probabilities of one token, before temperature and truncation.

    `top_ids` and `top_logprobs` are equally long, likeliest first.
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
