"""Events -> a whole answer of POST /v1/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import UNSET

from adapter.api.common.head import Head
from adapter.api.common.logprob_types import TextLogprobs
from adapter.api.completions.batch import Opening
from adapter.api.completions.stream import text_reason
from adapter.api.completions.text_logprobs import joined, text_logprobs
from adapter.api.completions.types import TextChoice, TextCompletion
from adapter.decode.events import Event, Finished, TextDelta, Used


class TextCollector:
    """Takes the events of one answer: to each prompt, with its opening, `choices` of which the best `kept` are shown.

    Without `logprobs` none are shown.
    """

    def __init__(
        self,
        head: Head,
        openings: Sequence[Opening],
        *,
        choices: int = 1,
        kept: int | None = None,
        logprobs: bool = False,
    ) -> None:
        self._head = head
        self._kept = choices if kept is None else kept
        self._prompts = [[_Collected(opening, logprobs) for _ in range(choices)] for opening in openings]
        self._choices = [choice for prompt in self._prompts for choice in prompt]
        self._used: Used | None = None

    def take(self, event: Event) -> None:
        if isinstance(event, Used):
            self._used = event
        else:
            self._choices[event.choice].take(event)

    def whole(self) -> TextCompletion:
        """Once the last event was taken."""
        assert self._used is not None
        kept = [choice for prompt in self._prompts for choice in self._best(prompt)]
        return TextCompletion(
            choices=[choice.whole(index) for index, choice in enumerate(kept)],
            usage=self._used.usage,
            **msgspec.structs.asdict(self._head),
        )

    def _best(self, choices: list[_Collected]) -> list[_Collected]:
        if self._kept == len(choices):
            return choices
        return sorted(choices, key=lambda choice: choice.likelihood, reverse=True)[: self._kept]


class _Collected:
    """One choice."""

    def __init__(self, opening: Opening, shows_logprobs: bool) -> None:
        self._opening = opening
        self._shows_logprobs = shows_logprobs
        self._texts = [opening.text]
        self._logprobs: list[TextLogprobs] = [] if opening.logprobs is None else [opening.logprobs]
        self._sum, self._count = 0.0, 0
        self._ids: list[int] | None = None
        self._reason: Literal["stop", "length"] = "stop"

    @property
    def likelihood(self) -> float:
        """The mean logprob of its tokens; a choice that says nothing comes last."""
        return self._sum / self._count if self._count else float("-inf")

    def take(self, event: Event) -> None:
        if isinstance(event, Finished):
            self._reason = text_reason(event)
        if not isinstance(event, TextDelta):
            return
        self._texts.append(event.text)
        if event.token_ids is not None:
            self._ids = (self._ids or []) + event.token_ids
        if event.logprobs is not None:
            self._sum += sum(one.logprob for one in event.logprobs)
            self._count += len(event.logprobs)
            offsets = [len(self._opening.text) + offset for offset in event.offsets or ()]
            self._logprobs.append(text_logprobs(event.logprobs, offsets))

    def whole(self, index: int) -> TextChoice:
        prompt_ids = self._opening.prompt_token_ids
        return TextChoice(
            index=index,
            text="".join(self._texts),
            logprobs=joined(self._logprobs) if self._shows_logprobs else None,
            finish_reason=self._reason,
            token_ids=UNSET if self._ids is None else self._ids,
            prompt_token_ids=UNSET if prompt_ids is None else prompt_ids,
        )
