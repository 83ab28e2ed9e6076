"""How a lost answer is carried on in the chat lane, where nothing but text is known of it.

afresh   nothing was delivered: the same request again.
replay   the same request again; what comes back must say what was delivered, and is skipped.
prefill  the server is given what was delivered as the beginning of its answer.
"""

from __future__ import annotations

from typing import Literal

from subnet.chat import CallDelta, ChatDelta
from subnet.client.ledger.chat import ChatChoice, ChatLedger, free, repeatable
from subnet.client.resume.token import Diverged

Way = Literal["afresh", "replay", "prefill"]


def way(ledger: ChatLedger, prefills: bool) -> Way:
    """Which is right for what the ledger still lacks, on a server that `prefills` or does not. What should come the
    same is asked for again; of the rest what can be gone on with is. Raises Diverged when none is right.
    """
    begun = [choice for choice in ledger.unfinished if choice.tokens]
    if not begun:
        return "afresh"
    sound = prefills and free(ledger.request.body) and all(choice.plain for choice in begun)
    if sound and (ledger.diverged or not repeatable(ledger.request.body)):
        return "prefill"
    if ledger.diverged:
        raise Diverged("the answer was interrupted, and no node could repeat or continue it")
    return "replay"


class Replay:
    """What was delivered of one choice, ticked off as it comes again, however it is split now."""

    def __init__(self, choice: ChatChoice) -> None:
        self._text = _Said(choice.text)
        self._reasoning = _Said(choice.reasoning)
        self._refusal = _Said(choice.refusal)
        self._calls = [(call.name, _Said(call.arguments)) for call in choice.calls]
        self._entries = choice.entries

    def rest(self, delta: ChatDelta) -> ChatDelta | None:
        """What of `delta` is new; None for nothing. Raises Diverged."""
        text, reasoning = self._text.rest(delta.text), self._reasoning.rest(delta.reasoning)
        refusal = self._refusal.rest(delta.refusal)
        calls = tuple(piece for call in delta.calls if (piece := self._call(call)) is not None)
        logprobs = self._logprobs(delta)
        if not (text or reasoning or refusal or calls or logprobs or delta.finish_reason):
            return None
        if not self._complete:
            raise Diverged("the replayed answer diverged before repeating everything that was delivered")
        return ChatDelta(delta.choice, text, reasoning, refusal, calls, logprobs, delta.finish_reason)

    @property
    def _complete(self) -> bool:
        said = [self._text, self._reasoning, self._refusal, *(arguments for _, arguments in self._calls)]
        return all(one.complete for one in said)

    def _call(self, delta: CallDelta) -> CallDelta | None:
        """Its id was told already, whatever it is now."""
        if delta.index >= len(self._calls):
            return delta
        name, arguments = self._calls[delta.index]
        if delta.name not in ("", name):
            raise Diverged("the replayed answer calls a different function than the one delivered")
        rest = arguments.rest(delta.arguments)
        return CallDelta(delta.index, arguments=rest) if rest else None

    def _logprobs(self, delta: ChatDelta) -> list[dict[str, object]] | None:
        if delta.logprobs is None:
            return None
        skip = min(self._entries, len(delta.logprobs))
        self._entries -= skip
        return delta.logprobs[skip:] or None


class _Said:
    """A text that was delivered in pieces, and how much of it came again."""

    def __init__(self, pieces: list[str]) -> None:
        self._expected = "".join(pieces)
        self._seen = 0

    @property
    def complete(self) -> bool:
        return self._seen == len(self._expected)

    def rest(self, piece: str) -> str:
        skip = min(len(self._expected) - self._seen, len(piece))
        if not self._expected.startswith(piece[:skip], self._seen):
            raise Diverged("the replayed answer differs from what was delivered")
        self._seen += skip
        return piece[skip:]
