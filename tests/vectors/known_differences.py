"""What differs from the expectations of the sources, with the reason of each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase

_RERANKERS = ("bge-reranker-v2-gemma", "mxbai_rerank_v2", "nemotron-rerank", "nemotron-vl-rerank")
_OTHER_RERANKERS = ("qwen3_reranker", "qwen3_vl_reranker", "zerank2")
_EMBEDDINGS = ("nemotron_embed_vl", "vlm2vec_phi3v", "vlm2vec_qwen2vl")

NO_CHAT: Mapping[str, str] = {
    f"vllm/examples/pooling/{kind}/template/{name}.jinja": reason
    for kind, names, reason in (
        ("score", (*_RERANKERS, *_OTHER_RERANKERS), "for rerankers: of a query and a document, not of a chat"),
        ("embed", _EMBEDDINGS, "for embeddings: of one message, not of a chat"),
    )
    for name in names
}
"""Templates that render no chat."""

UNKNOWN: Mapping[str, str] = {}
"""Templates with tools in a format that is not known."""

LLAMA_CPP: Mapping[str, str] = {}
"""Expectations of llama.cpp that differ, by patterns of template and line."""

VLLM_ONLY: Mapping[str, str] = {
    "reasoning/test_minimax_m2_append*": "a mode that leaves reasoning in the content",
    "*k2_horizon*": "of a family whose format is not known here",
    "*moves_into_content*": "vLLM moves reasoning without content into the content",
    "*_swaps_when_content_absent*": "vLLM moves reasoning without content into the content",
    "*thinking_disabled_with_*": "reasoning is told from content by the prompt, not by an option of the parser",
    "*test_nonstreaming_enabled_mode*": "reasoning is told from content by the prompt, not by an option of the parser",
    "*with_reasoning_effort_none*": "reasoning is told from content by the prompt, not by an option of the parser",
    "*glm53_template_forces*": "reasoning is told from content by the prompt, not by an option of the parser",
    "reasoning/*tool_call_*": "one parser reads reasoning and calls, so that calls are no content",
    "reasoning/*tool_section_ends*": "one parser reads reasoning and calls, so that calls are no content",
    "*adjust_request*": "vLLM changes its request",
    "*streaming_just_forward_text*": "how text is split into deltas",
    "*test_streaming_with_list_structure*": "state of vLLM's parser",
}
"""Tests of vLLM, by patterns, that do not apply: of what the gateway does not do."""

VLLM: Mapping[str, str] = {}
"""Expectations of vLLM that differ, by patterns of tests."""

VOCABULARIES: Mapping[str, str] = {}
"""Vocabularies that cannot be compared."""


def check(failed: Collection[str], known: Mapping[str, str]) -> None:
    """Check that the patterns in `known` match all that `failed`. Prints those that match none."""
    unlisted = [name for name in failed if not is_listed(name, known)]
    print("as expected now:", [pattern for pattern in known if not any(fnmatchcase(name, pattern) for name in failed)])
    assert not unlisted, f"not as expected: {unlisted}"


def is_listed(name: str, known: Mapping[str, str]) -> bool:
    """Return True if one of the patterns in `known` matches."""
    return any(fnmatchcase(name, pattern) for pattern in known)
