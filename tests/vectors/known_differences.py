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

UNKNOWN: Mapping[str, str] = {
    "*muse?glimmer.jinja": "each message has a recipient, as in harmony, and calls have tags",
}
"""Templates with tools in a format that is not known, by patterns."""

NOT_DERIVED: Mapping[str, str] = {
    "*gpt-oss*": "each message has a header with its recipient and its channel",
    "*Kimi-K3*": "names, and the types of arguments, are attributes of marks",
    "*MiniMax-M3*": "arguments are elements named after their keys",
    "*GigaChat3-10B*": "what ends messages also starts calls",
    "*functionary-medium-v3.2*": "calls start with their names, without a mark",
    "*functiongemma*": "the template has marks of texts around numbers as well",
    "*gemma3_pythonic*": "the template has no commas between arguments",
    "*llama*_pythonic*": "the template has no quotes around texts",
    "*toolace*": "the template has no quotes around texts",
    "*llama4_json*": "the template has no space between text and a call without a mark",
    "*gemma4*": "a message without reasoning has other marks",
    "*command-r7b*": "an empty pair of tags, whose names differ, is in each message",
}
"""Templates whose formats cannot be derived, by patterns."""

DERIVED: Mapping[str, str] = {
    "openbmb-MiniCPM5-1B.jinja:6903": "only texts with markup have marks around them",
}
"""Expectations of llama.cpp that derived formats do not meet, by patterns of template and line."""

LLAMA_CPP: Mapping[str, str] = {
    "mistralai-Ministral-3-14B-Reasoning-2512.jinja:2648": "a grammar enforces the schema, without a code fence",
    "meta-llama-Llama-3.1-8B-Instruct.jinja:6302": "a grammar enforces the schema, without a code fence",
    "Qwen3.5-4B.jinja:2377": "a mark that opens reasoning once more is dropped",
    "MiniMax-M3.jinja:5793": "nested elements are an object, even where the schema allows text as well",
    "Apriel-1.6-15b-Thinker-fixed.jinja:6*": "the mark that opens reasoning is in the prompt, and no part of it",
    "openai-gpt-oss-120b.jinja:65*": "a message to a recipient that is not a tool belongs to the reasoning",
}
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
    "*xlam*streaming_incremental*": "how arguments are split into deltas",
    "*xlam*think_tag*": "one parser reads reasoning and calls",
    "*_wrapper_repaired": "arguments are what the model wrote",
    "*minicpm5*wrapped_arguments*": "arguments are what the model wrote",
    "*minicpm5*extra_arguments*": "arguments are what the model wrote",
    "*minicpm5*duplicate_param*": "arguments are what the model wrote",
    "*minicpm5*case_sensitive*": "arguments are what the model wrote",
    "*minicpm5*test_alias*": "names are what the model wrote",
    "*minicpm5*collapsed*": "a format of faults that only vLLM repairs",
    "*minicpm5*space_marker": "pieces of a tokenizer, which the gateway decodes before",
    "*minicpm5*sentencepiece*": "pieces of a tokenizer, which the gateway decodes before",
    "*unknown_tool*": "unknown tools are calls as well: clients may handle them",
    "*minimax_m2*test_multiple_params": "arguments without a schema are JSON where they can be",
    "*minimax_m2*test_header_and_params*": "arguments without a schema are JSON where they can be",
}
"""Tests of vLLM, by patterns, that do not apply: of what the gateway does not do."""

VLLM: Mapping[str, str] = {
    "*test_mtp_streaming_massive_chunk": "white space before a call is left out",
    "*granite4*::test_tool_call_parser_complex*": "white space before a call is left out",
    "*minimax_m2*::TestContentStreaming::test_content_before_tool_call": "white space before a call is left out",
    "*minimax_m3*::test_streaming_nested_tool_call": "white space before a call is left out",
    "*deepseekv31*multiple_tools": "text after calls is content, as text before them",
    "*hunyuan*Thank you!*": "text after calls is content, as text before them",
    "*kimi_k2*test_content_after_tool_section": "text after calls is content, as text before them",
    "*step3p5*mixed_content_and_multiple*": "text after calls is content, as text before them",
    "*minicpm5*surrounding_text": "text after calls is content, as text before them",
    "*minicpm5*interleaved_text": "text after calls is content, as text before them",
    "*minicpm5*missing_function_end": "a call is one from its name on, as streams cannot take it back",
    "*minicpm5*param_missing_name*": "a call is one from its name on, as streams cannot take it back",
    "*dots*stray_end_marker": "text that is not a call stays text, with its marks",
    "*dots*malformed_block*": "text that is not a call stays text, with its marks",
    "*kimi_k2*noise_between*": "text that is not a call stays text, with its marks",
    "*gemma4*BareAndMalformed*": "text that is not a call stays text, with its marks",
    "*kimi_k2*invalid_funcall_id*": "an id without a number names its function as well",
    "*test_gemma4_reasoning[[]invalid*": "a stray mark of the end of reasoning is dropped",
    "*lfm2*nested_*": "quotes that are not escaped end a text, as in Python",
    "*lfm2*echoed_tool_call_body*": "text after calls is content, as text before them",
    "*llama3*test_extract_tool_calls_simple": "text after calls is content, as text before them",
    "*llama3*missing_parameters*": "a call of a function without parameters may have no arguments",
    "*dots*without_duplication": "how calls are split into deltas",
    "*hermes*invalid_json*": "a call is one from its name on, as streams cannot take it back",
    "*llama3*invalid_json": "a call is one from its name on, as streams cannot take it back",
    "*test_number_param": "a number may be written as 5 or as 5.0",
    "*deepseekr1*": "no reasoning and empty reasoning are the same",
    "*non_leading_end_tag*": "a stray mark of the end of reasoning is dropped",
}
"""Expectations of vLLM that differ, by patterns of tests."""

VOCABULARIES: Mapping[str, str] = {
    "ggml-vocab-bert-bge": "of a model for embeddings, which is refused with a hint to llama-server",
}
"""Vocabularies that cannot be compared."""


def check(failed: Collection[str], known: Mapping[str, str]) -> None:
    """Check that the patterns in `known` match all that `failed`. Prints those that match none."""
    unlisted = [name for name in failed if not is_listed(name, known)]
    print("as expected now:", [pattern for pattern in known if not any(fnmatchcase(name, pattern) for name in failed)])
    assert not unlisted, f"not as expected: {unlisted}"


def is_listed(name: str, known: Mapping[str, str]) -> bool:
    """Return True if one of the patterns in `known` matches."""
    return any(fnmatchcase(name, pattern) for pattern in known)
