"""Choice of a strategy to resume an answer on the chat lane, where tokens are unknown and text must be compared.

restart  nothing was delivered: send the same request again.
replay   send the same request again; the server must repeat what was delivered, which is skipped.
prefill  send what was delivered as a prefix for the server to continue; after a prompt, that is simply more text.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from subnet.chat import CallDelta, ChatDelta
from subnet.client.ledger.chat import ChatCall, ChatChoice, ChatLedger, is_deterministic
from subnet.client.resume.token import Diverged
from subnet.node_info import Capabilities

Strategy = Literal["restart", "replay", "prefill"]


def choose_strategy(ledger: ChatLedger, capabilities: Capabilities) -> Strategy:
    """Return the strategy for the unfinished choices on a node with `capabilities`.

    Answers that the node is likely to repeat are replayed first, others continued if possible. Raises Diverged if no
    strategy is left.
    """
    started = [choice for choice in ledger.unfinished if choice.tokens]
    if not started:
        return "restart"
    if any(choice.has_extra for choice in started):
        raise Diverged("the answer was interrupted, and its other members cannot be continued")
    can_prefill = ledger.can_continue(capabilities) and all(choice.is_plain_text for choice in started)
    can_replay = capabilities.replay and not ledger.diverged
    is_repeatable = is_deterministic(ledger.request.body) or (ledger.has_own_seed and capabilities.seeds)
    if can_replay and (is_repeatable or not can_prefill):
        return "replay"
    if can_prefill:
        return "prefill"
    raise Diverged("the answer was interrupted, and no node could repeat or continue it")


class Replay:
    """Check that one choice repeats what was delivered of it, which is skipped. Deltas may be split differently."""

    def __init__(self, choice: ChatChoice) -> None:
        self._text = _DeliveredText(choice.text)
        self._reasoning = _DeliveredText(choice.reasoning)
        self._refusal = _DeliveredText(choice.refusal)
        self._calls = [_DeliveredCall(call) for call in choice.calls]
        self._missing_calls = set(range(len(self._calls)))
        self._logprobs_to_skip = choice.logprob_count

    def skip_delivered(self, delta: ChatDelta) -> ChatDelta | None:
        """Return the part of `delta` that was not delivered yet; None for nothing. Raises Diverged."""
        text, reasoning = self._text.skip_delivered(delta.text), self._reasoning.skip_delivered(delta.reasoning)
        refusal = self._refusal.skip_delivered(delta.refusal)
        calls = tuple(new for call in delta.calls if (new := self._new_call(call)) is not None)
        logprobs = self._new_logprobs(delta)
        if not (text or reasoning or refusal or calls or logprobs or delta.finish_reason or delta.extra):
            return None
        if not self._complete:
            raise Diverged("the replayed answer diverged before repeating everything that was delivered")
        return msgspec.structs.replace(
            delta, text=text, reasoning=reasoning, refusal=refusal, calls=calls, logprobs=logprobs
        )

    @property
    def _complete(self) -> bool:
        texts = self._text.complete and self._reasoning.complete and self._refusal.complete
        return texts and not self._missing_calls and all(call.complete for call in self._calls)

    def _new_call(self, delta: CallDelta) -> CallDelta | None:
        if delta.index >= len(self._calls):
            return delta
        self._missing_calls.discard(delta.index)
        return self._calls[delta.index].skip_delivered(delta)

    def _new_logprobs(self, delta: ChatDelta) -> list[dict[str, object]] | None:
        if delta.logprobs is None:
            return None
        skip = min(self._logprobs_to_skip, len(delta.logprobs))
        self._logprobs_to_skip -= skip
        return delta.logprobs[skip:] or None


class _DeliveredCall:
    """Delivered part of a tool call, and what of it a replay has not repeated yet."""

    def __init__(self, call: ChatCall) -> None:
        self._name = call.name
        self._arguments = _DeliveredText(call.arguments)
        self._missing_extra = [member for part in call.extra for member in part.items()]

    @property
    def complete(self) -> bool:
        return self._arguments.complete and not self._missing_extra

    def skip_delivered(self, delta: CallDelta) -> CallDelta | None:
        """Return the new part of a tool call. Its id is ignored: a replay has another one than was delivered."""
        if delta.name not in ("", self._name):
            raise Diverged("the replayed answer calls a different function than the one delivered")
        arguments, extra = self._arguments.skip_delivered(delta.arguments), self._new_extra(delta.extra or {})
        return CallDelta(delta.index, arguments=arguments, extra=extra or None) if arguments or extra else None

    def _new_extra(self, extra: dict[str, Any]) -> dict[str, Any]:
        new = {}
        for member in extra.items():
            if member in self._missing_extra:
                self._missing_extra.remove(member)
            else:
                new[member[0]] = member[1]
        return new


class _DeliveredText:
    """Delivered text, and the position up to which a replay has repeated it."""

    def __init__(self, parts: list[str]) -> None:
        self._expected = "".join(parts)
        self._repeated = 0

    @property
    def complete(self) -> bool:
        return self._repeated == len(self._expected)

    def skip_delivered(self, part: str) -> str:
        skip = min(len(self._expected) - self._repeated, len(part))
        if not self._expected.startswith(part[:skip], self._repeated):
            raise Diverged("the replayed answer differs from what was delivered")
        self._repeated += skip
        return part[skip:]
