"""Fixtures and options of all tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.faults.table import write_table
from tests.processes import adapter_up
from tests.relay import Relay

pytest_plugins = ["tests.real_engine", "tests.second_model"]

# The time that an example takes depends more on the machine than on the code.
settings.register_profile("untimed", deadline=None)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile("untimed")


# Tests that start processes, load real models or generate many examples: left out by `make check`.
_SLOW = {
    *("test_bench", "test_chat_lane", "test_client_parts", "test_contract_fuzz", "test_cycles"),
    *("test_detect", "test_disconnect", "test_docs", "test_embeddings", "test_garbage_collection"),
    *("test_gguf", "test_harmony", "test_home", "test_hostile_clients", "test_hostile_servers"),
    *("test_http_protocol", "test_llama_cpp_engine", "test_llama_cpp_fallback", "test_llama_cpp_grammar"),
    *("test_artefact", "test_llama_cpp_exactness", "test_llama_cpp_tokenizing", "test_node_tokenizer", "test_patterns"),
    *("test_llama_cpp_reading", "test_llama_server_engine", "test_llama_server_split", "test_node"),
    *("test_one_answer", "test_openai_protocol_real", "test_param_names", "test_parsers"),
    *("test_parsers_free", "test_parsers_grammar", "test_pipeline"),
    *("test_policies", "test_pretrained", "test_pretrained_hub", "test_providers", "test_sglang_engine"),
    *("test_socket_writer", "test_strict_calls", "test_text_completions", "test_tokenizer_native"),
    *("test_tokens", "test_transformers_engine", "test_transformers_killed"),
    *("test_nginx", "test_shutdown", "test_up", "test_workers"),
}
_SLOW_FOLDERS = {"faults", "clients", "security"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in _SLOW or not _SLOW_FOLDERS.isdisjoint(item.path.parts):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Exclude what importing the tests has made from garbage collection: with it, each collection takes a second."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    # The processes of xdist have a part of the results each; only the one that controls them has all.
    if not hasattr(terminalreporter.config, "workerinput"):
        write_table(terminalreporter)


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run a relay in front of a gateway with two nodes that run the real model."""
    # Keep-alives between the tokens, which every client must ignore.
    with adapter_up(
        "--threads", "1", "--sse-keep-alive", "0.02", directory=str(tmp_path_factory.mktemp("up"))
    ) as running:
        with Relay(running.url) as relay:
            yield relay


@pytest.fixture(scope="session")
def real(relay: Relay) -> str:
    """URL of the relay, which checks all responses that pass through it."""
    return relay.url
