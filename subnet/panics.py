"""Panics of libraries that are written in Rust: bugs in them, which Python would otherwise not treat as errors."""

from __future__ import annotations

from types import TracebackType

# The module of pyo3's PanicException, which is a BaseException. Each library has a class of its own.
_PYO3 = "pyo3_runtime"


class LibraryPanic(RuntimeError):
    """A library failed in a way that its authors excluded; the message is the library's own."""


class _PanicGuard:
    """Context manager that raises a panic within it as LibraryPanic. It has no state, and may be nested."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and type(error).__module__ == _PYO3:
            raise LibraryPanic(str(error)) from error


panics_as_errors = _PanicGuard()
"""Guard of all calls of tiktoken, tokenizers and llguidance: `with panics_as_errors: ...`."""
