"""ctypes bindings of llama.cpp's C interface, as exported by the shared library in the xllamacpp wheel.

Only the functions that the engine needs are bound. ctypes releases the GIL during every call. The interface changes
from version to version, so header.py, with the struct layouts and signatures, is generated from the header of exactly
the version that pyproject.toml pins, and `load_library` compares it with the library before use (binding.py).

To move to another version:

1. Change the version in pyproject.toml, run `make lock`, then `make lint`, which installs it. Until step 3, nodes log a
   warning and serve through the wheel's own server (fallback_engine.py).
2. Download the source distribution of the same version:
   `pip download --no-deps --no-binary xllamacpp --dest /tmp xllamacpp==VERSION`
3. Regenerate header.py: `python -m tests.llama_header /tmp/xllamacpp-VERSION.tar.gz`. It needs a C compiler, and fails
   if a function, field or constant is gone; then llama.h tells what replaces it.
4. Read the diff of header.py. New arguments of functions need a change in model.py; new defaults may change what a
   context does.
5. Run tests/subnet/engines/test_llama_cpp_*.py: logits must still not depend on batching.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import importlib.util
from pathlib import Path

from subnet.engines.llama_cpp.binding import Binding, find_mismatch
from subnet.engines.llama_cpp.header import BINDING, GGML_LOG_LEVEL_CONT, GGML_LOG_LEVEL_ERROR
from subnet.errors import SettingsError

WHEEL = f"xllamacpp=={BINDING.version}"
LogCallback = BINDING.functions["llama_log_set"][1]


class BindingMismatch(SettingsError):
    """The installed library differs from the binding; the message says in what."""

    code = "binding_mismatch"


class ErrorLog:
    """Suppresses llama.cpp's log, but keeps its last error lines for exception messages."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._level = 0
        self.callback = LogCallback(self._write)

    def _write(self, level: int, text: bytes, _user: object) -> None:
        self._level = self._level if level == GGML_LOG_LEVEL_CONT else level
        if self._level == GGML_LOG_LEVEL_ERROR:
            self._lines = [*self._lines, text.decode("utf-8", "replace").strip()][-3:]

    def pop_errors(self) -> str:
        """Return the last error lines as one line, and clear them."""
        lines, self._lines = self._lines, []
        return "; ".join(filter(None, lines)) or "llama.cpp reported no error message"


log = ErrorLog()


def load_library(binding: Binding = BINDING) -> ctypes.CDLL:
    """Load the library and set the types of its functions; later calls return the same object.

    Raises SettingsError if the wheel is missing or cannot be loaded, and BindingMismatch if it is not the one that
    `binding` describes.
    """
    return _load_library(binding)


@functools.cache
def _load_library(binding: Binding) -> ctypes.CDLL:
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        raise SettingsError(f"the llama.cpp engine requires the package {WHEEL}, which is not installed")
    try:
        path = str(next(Path(spec.origin).parent.glob("xllamacpp*.so")))
        version = importlib.metadata.version("xllamacpp")
        mismatch = find_mismatch(path, binding, version)
        library = ctypes.CDLL(path)
    except (StopIteration, OSError, importlib.metadata.PackageNotFoundError) as error:
        reason = str(error) or "it contains no library"
        raise SettingsError(f"the llama.cpp engine requires the package {WHEEL}: {reason}") from error
    if mismatch is not None:
        raise BindingMismatch(f"the llama.cpp engine requires the package {WHEEL}: {mismatch}")
    binding.type_functions(library)
    library.llama_log_set(log.callback, None)
    library.llama_backend_init()
    return library
