"""How a lost answer is carried on: the one place that decides, from what the engine of the next node declares.

exact     the engine restores sampling, penalties and grammar at a position: it gets prompt and delivered tokens.
continue  the delivered tokens become part of the prompt. Right where the future depends on the tokens alone.
replay    the same request again; what comes back must equal what was delivered, and is skipped.
"""

from __future__ import annotations

import sys

import msgspec
import numpy as np

from subnet.client.ledger.token import NOTHING, Choice, TokenLedger
from subnet.errors import NodeError
from subnet.generation import Delta, Sampling
from subnet.node_info import Resume
from subnet.wire.messages import ChoiceStart, Generate
from subnet.wire.tensors import pack, token_ids


class Diverged(NodeError):
    """A replay did not give what was delivered. The node is not to blame."""

    code = "diverged"


def way(ledger: TokenLedger, declared: Resume) -> Resume:
    """Which of the three ways is right for what the ledger still lacks. Raises Diverged when none is."""
    if declared == "exact" or not any(choice.tokens for choice in ledger.unfinished):
        return "exact"
    if not ledger.diverged:
        return "continue" if declared == "continue" and _tokens_alone(ledger) else "replay"
    if ledger.sampling.grammar is not None:
        # A fresh grammar after half an object would allow what the schema does not.
        raise Diverged("the answer was interrupted, and another node did not repeat its beginning")
    return "continue"


def _tokens_alone(ledger: TokenLedger) -> bool:
    """Whether the next token depends on the tokens before it, and on nothing that a fresh engine lacks."""
    sampling = ledger.sampling
    penalised = sampling.frequency_penalty or sampling.presence_penalty or sampling.repetition_penalty != 1.0
    seeded = ledger.seeded and sampling.temperature > 0
    return not (seeded or penalised or sampling.grammar is not None)


class Resumption:
    """What to ask of a node for what the ledger lacks, of at most `most` choices, and what of its answers is new."""

    def __init__(self, ledger: TokenLedger, declared: Resume, most: int = sys.maxsize) -> None:
        self.way = way(ledger, declared)
        self.choices = ledger.unfinished[:most]
        replayed = self.choices if self.way == "replay" else ()
        self._replayed = {choice.index: _Replay(choice) for choice in replayed}
        if self.way == "continue":
            self.requests = [_continued(ledger, choice) for choice in self.choices]
        else:
            self.requests = [ledger.request(self.choices, with_delivered=self.way == "exact")]

    def new(self, delta: Delta) -> Delta | None:
        """What of `delta` the client does not have yet; None for nothing. Raises Diverged."""
        replay = self._replayed.get(delta.choice)
        return delta if replay is None else replay.rest(delta)


class _Replay:
    """The delivered tokens of one choice, ticked off as they come again."""

    def __init__(self, choice: Choice) -> None:
        self._expected = list(choice.tokens)
        self._seen = 0

    def rest(self, delta: Delta) -> Delta | None:
        skip = min(len(self._expected) - self._seen, len(delta.tokens))
        if skip == 0 and self._seen == len(self._expected):
            return delta
        again = self._expected[self._seen : self._seen + skip]
        self._seen += skip
        ended_early = delta.finish_reason is not None and self._seen < len(self._expected)
        if delta.tokens[:skip] != again or ended_early:
            raise Diverged("the replayed tokens differ from those delivered")
        if skip == len(delta.tokens) and delta.finish_reason is None:
            return None
        logprobs = None if delta.logprobs is None else delta.logprobs[skip:]
        return Delta(delta.choice, delta.tokens[skip:], logprobs, delta.finish_reason)


def _continued(ledger: TokenLedger, choice: Choice) -> Generate:
    return Generate(
        model=ledger.model,
        prompt=pack(np.concatenate([ledger.prompt, token_ids(choice.tokens)])),
        sampling=_remaining(ledger.sampling, len(choice.tokens)),
        starts=(ChoiceStart(choice.index, NOTHING),),
    )


def _remaining(sampling: Sampling, delivered: int) -> Sampling:
    limit = None if sampling.max_tokens is None else sampling.max_tokens - delivered
    return msgspec.structs.replace(sampling, max_tokens=limit, min_tokens=max(0, sampling.min_tokens - delivered))
