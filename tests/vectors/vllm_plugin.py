"""pytest plugin that runs vLLM's tests of its parsers with the gateway's parsers in their place.

vLLM itself is neither installed nor imported: its modules are empty ones, whose parsers are those of the gateway. A
test that asks for anything else of vLLM is skipped. The outcomes are written to the file in VLLM_OUTCOMES. The tests
are in the working directory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import tests
from tests.vectors import vllm_modules
from tests.vectors.vllm_parsers import BY_TOKENS

vllm_modules.install()
# vLLM's tests are in a package of the same name.
tests.__path__.append(str(Path("tests").absolute()))
_OUTCOMES: dict[str, str] = {}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "skip_global_cleanup: of vLLM")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Note the outcome: only a failed assertion says that an expectation is not met."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.when != "call" and report.passed:
        return
    detail = str(call.excinfo.value) if call.excinfo else ""
    if hasattr(report, "wasxfail"):
        result = "not applicable: vLLM does not expect it of itself"
    elif report.passed or BY_TOKENS in detail:
        result = "met"
    elif call.excinfo is not None and call.excinfo.errisinstance(AssertionError):
        result = f"failed: {detail}"
    else:
        result = f"not applicable: {type(call.excinfo.value).__name__ if call.excinfo else ''} {detail}"
    _OUTCOMES[item.nodeid.removeprefix("tests/")] = result


def pytest_sessionfinish() -> None:
    Path(os.environ["VLLM_OUTCOMES"]).write_text(json.dumps(_OUTCOMES, indent=1))
