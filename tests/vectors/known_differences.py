"""What differs from the expectations of the sources, with the reason of each."""

from __future__ import annotations

from collections.abc import Mapping

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
"""Expectations of llama.cpp that differ, by template and line."""

VLLM: Mapping[str, str] = {}
"""Expectations of vLLM that differ, by test."""

VOCABULARIES: Mapping[str, str] = {}
"""Vocabularies that cannot be compared."""
