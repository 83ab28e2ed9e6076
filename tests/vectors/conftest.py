"""Skips these tests where the sources were not fetched."""

from __future__ import annotations

import pytest

from tests.vectors.set_up import FOLDER, REASON


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if (FOLDER / "vllm" / "complete").exists() and (FOLDER / "llama.cpp" / "complete").exists():
        return
    reason = REASON.read_text() if REASON.exists() else "no sources: `make test-vectors` fetches them"
    for item in items:
        item.add_marker(pytest.mark.skip(reason=reason))
