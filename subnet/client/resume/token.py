"""Choice of a strategy to resume an answer on the token lane, from what the next node's engine supports.

exact     the engine restores sampling, penalties and grammar at a position: send the prompt and the delivered tokens.
continue  append the delivered tokens to the prompt; correct if later tokens depend on the earlier tokens alone, or on
          those and on a seed whose draws go by position. Other seeds are mixed with the position by the engine, because
          the draws of the answer's beginning would be repeated.
replay    send the same request again; the node must repeat the delivered tokens, which are skipped.

A node with other weights than those that produced the tokens would add the tokens of another model. It gets a replay,
whatever its engine supports.
"""

from __future__ import annotations

import sys

import msgspec
import numpy as np

from subnet.client.ledger.token import NO_TOKENS, TokenChoice, TokenLedger
from subnet.errors import NodeError
from subnet.generation import Delta, Sampling
from subnet.node_info import Capabilities, Resume
from subnet.tensors import pack, token_ids
from subnet.wire.messages import ChoiceStart, Generate


class Diverged(NodeError):
    """Error for a replay that differs from the delivered tokens. It is not counted as a failure of the node."""

    code = "diverged"


def choose_strategy(ledger: TokenLedger, capabilities: Capabilities, weights: str = "") -> Resume:
    """Return the strategy for the unfinished choices of `ledger`, on a node with `weights` ("": unknown) whose engine
    has `capabilities`. Raises Diverged if none is correct.
    """
    if not any(choice.tokens for choice in ledger.unfinished):
        return "exact"
    usable = capabilities.resume if ledger.has_weights(weights) else "replay"
    if usable == "exact":
        return "exact"
    if not ledger.diverged:
        return "continue" if usable == "continue" and _is_continuable(ledger, capabilities) else "replay"
    if ledger.sampling.grammar is not None:
        # A grammar that restarts in the middle of an object would allow output that the schema forbids.
        raise Diverged("the answer was interrupted, and another node did not repeat its beginning")
    return "continue"


def _is_continuable(ledger: TokenLedger, capabilities: Capabilities) -> bool:
    """Return True if the next token depends only on the tokens before it, and on a seed only if draws are positional,
    but not on penalties or a grammar.
    """
    sampling = ledger.sampling
    penalised = sampling.frequency_penalty or sampling.presence_penalty or sampling.repetition_penalty != 1.0
    seeded = ledger.has_caller_seed and sampling.temperature > 0 and not capabilities.positional_draws
    return not (seeded or penalised or sampling.grammar is not None)


class ResumePlan:
    """Requests for the unfinished choices of a ledger, at most `max_choices`, and the filter for their deltas."""

    def __init__(
        self, ledger: TokenLedger, capabilities: Capabilities, max_choices: int = sys.maxsize, weights: str = ""
    ) -> None:
        self.strategy = choose_strategy(ledger, capabilities, weights)
        self.choices = ledger.unfinished[:max_choices]
        replayed = self.choices if self.strategy == "replay" else ()
        self._replays = {choice.index: _Replay(choice) for choice in replayed}
        if self.strategy == "continue":
            self.requests = [_continue_request(ledger, choice) for choice in self.choices]
        else:
            self.requests = [ledger.build_request(self.choices, with_delivered=self.strategy == "exact")]

    def skip_delivered(self, delta: Delta) -> Delta | None:
        """Return the part of `delta` that was not delivered yet; None for nothing. Raises Diverged."""
        replay = self._replays.get(delta.choice)
        return delta if replay is None else replay.skip_delivered(delta)


class _Replay:
    """Check that one choice repeats its delivered tokens, which are skipped."""

    def __init__(self, choice: TokenChoice) -> None:
        self._expected = list(choice.tokens)
        self._repeated = 0

    def skip_delivered(self, delta: Delta) -> Delta | None:
        skip = min(len(self._expected) - self._repeated, len(delta.tokens))
        if skip == 0 and self._repeated == len(self._expected):
            return delta
        expected = self._expected[self._repeated : self._repeated + skip]
        self._repeated += skip
        ended_early = delta.finish_reason is not None and self._repeated < len(self._expected)
        if delta.tokens[:skip] != expected or ended_early:
            raise Diverged("the replayed tokens differ from those delivered")
        if skip == len(delta.tokens) and delta.finish_reason is None:
            return None
        logprobs = None if delta.logprobs is None else delta.logprobs[skip:]
        return Delta(delta.choice, delta.tokens[skip:], logprobs, delta.finish_reason)


def _continue_request(ledger: TokenLedger, choice: TokenChoice) -> Generate:
    return Generate(
        model=ledger.model,
        prompt=pack(np.concatenate([ledger.prompt, token_ids(choice.tokens)])),
        sampling=_remaining_sampling(ledger.sampling, len(choice.tokens)),
        starts=(ChoiceStart(choice.index, NO_TOKENS, len(choice.tokens)),),
    )


def _remaining_sampling(sampling: Sampling, delivered: int) -> Sampling:
    max_tokens = None if sampling.max_tokens is None else sampling.max_tokens - delivered
    return msgspec.structs.replace(sampling, max_tokens=max_tokens, min_tokens=max(0, sampling.min_tokens - delivered))
