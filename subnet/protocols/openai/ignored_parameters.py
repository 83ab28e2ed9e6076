"""Parameters that servers accept and ignore without a word: what is sent instead, or that they are refused.

One row for each type of server and range of versions, with the date of the check and its source.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from subnet.http.node_spec import Kind
from subnet.http.server_version import Version, parse_version
from subnet.protocols.openai.structured_outputs import to_guided, to_sglang, to_structured_outputs, to_tgi

Body = dict[str, Any]
# OpenAI's parameters that no local server has.
_CLOUD_ONLY = "audio function_call functions modalities verbosity web_search_options"
_VLLM = f"typical_p {_CLOUD_ONLY}"
_SGLANG = f"typical_p include_stop_str_in_output chat_template documents {_CLOUD_ONLY}"
_LLAMA_SERVER = "structured_outputs guided_json guided_regex guided_choice guided_grammar echo suffix best_of"


def names(text: str) -> frozenset[str]:
    """Split a space-separated list of parameter names."""
    return frozenset(text.split())


def _unchanged(body: Body) -> Body:
    return body


class Row(NamedTuple):
    """What the versions of a server from `since` to before `until` ignore.

    `refused` are refused by name in chat completions, `text_refused` in text completions. `translate` returns a body
    with others in the server's own form, and raises InvalidRequest for what it has no form for. `checked` is the
    version that was run, or what else was consulted, and the date.
    """

    kind: Kind
    checked: str
    refused: frozenset[str]
    text_refused: frozenset[str]
    translate: Callable[[Body], Body] = _unchanged
    since: Version = ()
    until: Version | None = None

    def covers(self, version: Version) -> bool:
        return self.since <= version and (self.until is None or version < self.until)


IGNORED = (
    # Run: unknown parameters are accepted, and guided_* are unknown since they were removed.
    Row("vllm", "0.32.0, 2026-11-30", names(_VLLM), names(_VLLM), to_structured_outputs, since=(0, 11)),
    # docs.vllm.ai/en/v0.10.2, "Structured Outputs": structured_outputs came with 0.11.
    Row("vllm", "documentation, 2026-11-30", names(_VLLM), names(_VLLM), to_guided, until=(0, 11)),
    # python/sglang/srt/entrypoints/openai/protocol.py, ChatCompletionRequest and CompletionRequest: only the latter has
    # `echo`, which serving_completions.py applies, and `best_of`, which it does not.
    Row("sglang", "source, 2026-11-30", names(f"{_SGLANG} echo"), names(f"{_SGLANG} best_of"), to_sglang),
    # Run.
    Row("llama-server", "b11549, 2026-11-30", names(_LLAMA_SERVER), names(_LLAMA_SERVER)),
    # router/src/lib.rs, GrammarType: the content of a response format is its `value`, which must not be missing.
    Row("tgi", "source, 2026-11-30", names(""), names(""), to_tgi),
)


def ignored_by(kind: Kind, version: str) -> Row | None:
    """Return the row of a server, if it has one; without a known version, that of the newest ones."""
    parsed = parse_version(version)
    rows = [row for row in IGNORED if row.kind == kind]
    fits = (row for row in rows if parsed is None or row.covers(parsed))
    return next(fits, None)
