"""Text completion on the chat lane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapter.api.common.inputs import split_inputs
from adapter.api.completions.batch import CompletionBatch
from adapter.api.completions.types import CompletionEnvelope
from adapter.generation.base import Candidate
from adapter.generation.chat_lane import ChatGeneration
from subnet.node_info import ModelCard


def upstream_batch(
    params: CompletionEnvelope, body: Mapping[str, Any], card: ModelCard, candidate: Candidate
) -> CompletionBatch:
    """Return the completions by servers of the chat lane, which get each prompt of `body` in a request of its own.

    Raises BadRequest for what no such server supports.
    """
    choices = params.n or 1
    return CompletionBatch(
        [
            ChatGeneration(
                card,
                {**body, "prompt": prompt},
                endpoint="completions",
                choices=choices,
                first=number * choices,
                key=params.routing_key,
                priority=params.priority or 0,
                bound=candidate.bound,
                limit=candidate.limit,
            )
            for number, prompt in enumerate(split_inputs(params.prompt))
        ],
        choices,
    )
