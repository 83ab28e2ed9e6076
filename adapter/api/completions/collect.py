"""Collector of the events of a text completion that is not streamed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from adapter.api.common.extra import usage_with_extra
from adapter.api.common.head import Head
from adapter.api.common.large_json import size_of_choice, token_list
from adapter.api.common.logprob_types import TextLogprobs
from adapter.api.completions.batch import ChoicePrefix
from adapter.api.completions.stream import text_reason
from adapter.api.completions.text_logprobs import concatenate, text_logprobs
from adapter.api.completions.types import TextChoice, TextCompletion, TextFinishReason
from adapter.decode.events import Event, Extra, Finished, ResponseExtra, TextDelta, Used


class TextCollector:
    """Builds a TextCompletion from the events of one answer.

    `prefixes` has one entry per prompt. Each prompt has `choices` choices, of which the best `n` are returned (None:
    all of them). `logprobs` False: the response has no logprobs.
    """

    def __init__(
        self,
        head: Head,
        prefixes: Sequence[ChoicePrefix],
        *,
        choices: int = 1,
        n: int | None = None,
        logprobs: bool = False,
    ) -> None:
        self._head = head
        self._n = choices if n is None else n
        self._prompts = [[_ChoiceCollector(prefix, logprobs) for _ in range(choices)] for prefix in prefixes]
        self._choices = [choice for prompt in self._prompts for choice in prompt]
        self._used: Used | None = None
        self._extra: dict[str, Any] = {}

    def receive(self, event: Event) -> None:
        if isinstance(event, Used):
            self._used = event
        elif isinstance(event, ResponseExtra):
            self._extra |= event.fields
        else:
            self._choices[event.choice].receive(event)

    @property
    def size(self) -> int:
        """Approximate size of the JSON of the text completion, in bytes."""
        return sum(choice.size for choice in self._choices)

    def build(self) -> TextCompletion | dict[str, Any]:
        """Return the text completion, as a dict if it has members that TextCompletion does not have; to be called after
        the last event was received.
        """
        assert self._used is not None
        best = [choice for prompt in self._prompts for choice in self._best(prompt)]
        completion = TextCompletion(
            choices=[choice.build(index) for index, choice in enumerate(best)],
            usage=self._used.usage,
            **msgspec.structs.asdict(self._head),
        )
        if not (self._extra or self._used.extra or any(choice.extra for choice in best)):
            return completion
        fields: dict[str, Any] = msgspec.to_builtins(completion) | self._extra
        fields["usage"] = usage_with_extra(self._used)
        for built, choice in zip(fields["choices"], best, strict=True):
            built |= choice.extra
        return fields

    def _best(self, choices: list[_ChoiceCollector]) -> list[_ChoiceCollector]:
        if self._n == len(choices):
            return choices
        return sorted(choices, key=lambda choice: choice.mean_logprob, reverse=True)[: self._n]


class _ChoiceCollector:
    """Collector of the events of one choice. `extra` are members that are passed on."""

    def __init__(self, prefix: ChoicePrefix, include_logprobs: bool) -> None:
        self._prefix = prefix
        self._include_logprobs = include_logprobs
        self._texts = [prefix.text]
        self._logprobs: list[TextLogprobs] = [] if prefix.logprobs is None else [prefix.logprobs]
        self._sum, self._count = 0.0, 0
        self._token_ids: list[int] | None = None
        self._reason: TextFinishReason = "stop"
        self.extra: dict[str, Any] = {}

    @property
    def mean_logprob(self) -> float:
        """Mean logprob of the tokens; minus infinity for a choice without any."""
        return self._sum / self._count if self._count else float("-inf")

    @property
    def _has_logprobs(self) -> bool:
        """False also for a text whose server sent no logprobs, although they were requested."""
        return self._include_logprobs and (bool(self._logprobs) or not any(self._texts))

    @property
    def size(self) -> int:
        prefix, logprobs = self._prefix, self._logprobs
        ids = 0 if prefix.prompt_token_ids is None else len(prefix.prompt_token_ids)
        width = len(logprobs[-1].top_logprobs[-1] or ()) if logprobs and logprobs[-1].top_logprobs else 0
        tokens = sum(len(part.tokens) for part in logprobs)
        return len(prefix.text) + size_of_choice(len(self._texts), ids=ids, logprobs=tokens, width=width)

    def receive(self, event: Event) -> None:
        if isinstance(event, Finished):
            self._reason = text_reason(event)
        if isinstance(event, Extra):
            self.extra |= event.fields
        if not isinstance(event, TextDelta):
            return
        self._texts.append(event.text)
        if event.token_ids is not None:
            self._token_ids = (self._token_ids or []) + event.token_ids
        if event.logprobs is not None:
            self._sum += sum(one.logprob for one in event.logprobs)
            self._count += len(event.logprobs)
            offsets = [len(self._prefix.text) + offset for offset in event.offsets or ()]
            self._logprobs.append(text_logprobs(event.logprobs, offsets))

    def build(self, index: int) -> TextChoice:
        prompt_ids = self._prefix.prompt_token_ids
        return TextChoice(
            index=index,
            text="".join(self._texts),
            logprobs=concatenate(self._logprobs) if self._has_logprobs else None,
            finish_reason=self._reason,
            token_ids=UNSET if self._token_ids is None else self._token_ids,
            prompt_token_ids=UNSET if prompt_ids is None else token_list(prompt_ids),
        )
