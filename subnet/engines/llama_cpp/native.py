"""ctypes bindings of llama.cpp's C interface, as exported by the shared library in the xllamacpp wheel.

Only the functions that the engine needs are bound, with names and signatures of llama.cpp's include/llama.h. ctypes
releases the GIL during every call. The parameter structs have no stable layout: they are treated as opaque bytes with a
few fields at known offsets, and `load_library` rejects a wheel whose default values do not match these offsets.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int8, c_int32, c_uint32, c_void_p
from pathlib import Path
from typing import Any

from subnet.errors import SettingsError

WHEEL = "xllamacpp==2026.10.11549"

Int32s = POINTER(c_int32)
LogCallback = ctypes.CFUNCTYPE(None, c_int32, c_char_p, c_void_p)


class Params(ctypes.Structure):
    """llama_model_params or llama_context_params; larger than both, which the calling convention permits."""

    _fields_ = (("raw", ctypes.c_uint8 * 512),)

    def get(self, offset: int) -> int:
        return c_uint32.from_buffer(self, offset).value

    def set(self, offset: int, value: int) -> None:
        c_uint32.from_buffer(self, offset).value = value

    def set_flag(self, offset: int, value: bool) -> None:
        c_bool.from_buffer(self, offset).value = value


class Batch(ctypes.Structure):
    """llama_batch: for each token its id, position, sequences, and whether its logits are needed."""

    _fields_ = (
        ("n_tokens", c_int32),
        ("token", Int32s),
        ("embd", c_void_p),
        ("pos", Int32s),
        ("n_seq_id", Int32s),
        ("seq_id", POINTER(Int32s)),
        ("logits", POINTER(c_int8)),
    )


# Offsets in bytes, determined from the default values of the pinned wheel.
N_CTX, N_BATCH, N_UBATCH, N_SEQ_MAX, N_THREADS, N_THREADS_BATCH, POOLING = 0, 4, 8, 12, 28, 32, 44
VOCAB_ONLY = 72

# enum llama_pooling_type
POOLING_NONE, POOLING_LAST = 0, 3

_UNSET = 2**32 - 1
_CONTEXT_DEFAULTS = {0: 512, 4: 2048, 8: 512, 12: 1, 16: 0, 20: 0, 24: 1, 28: 4, 32: 4}
_CONTEXT_DEFAULTS |= {40: _UNSET, 44: _UNSET, 52: _UNSET}
_MODEL_DEFAULTS = {16: _UNSET, 20: 1, 24: _UNSET, 28: 1, 32: 0, 72: 0x010000}

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "llama_backend_init": (None,),
    "llama_log_set": (None, LogCallback, c_void_p),
    "llama_model_default_params": (Params,),
    "llama_context_default_params": (Params,),
    "llama_model_load_from_file": (c_void_p, c_char_p, Params),
    "llama_model_free": (None, c_void_p),
    "llama_model_get_vocab": (c_void_p, c_void_p),
    "llama_model_n_ctx_train": (c_int32, c_void_p),
    "llama_init_from_model": (c_void_p, c_void_p, Params),
    "llama_free": (None, c_void_p),
    "llama_n_ctx_seq": (c_uint32, c_void_p),
    "llama_batch_init": (Batch, c_int32, c_int32, c_int32),
    "llama_batch_free": (None, Batch),
    "llama_decode": (c_int32, c_void_p, Batch),
    "llama_get_logits_ith": (POINTER(c_float), c_void_p, c_int32),
    "llama_set_embeddings": (None, c_void_p, c_bool),
    "llama_get_embeddings_ith": (POINTER(c_float), c_void_p, c_int32),
    "llama_pooling_type": (c_int32, c_void_p),
    "llama_model_n_embd_out": (c_int32, c_void_p),
    "llama_get_memory": (c_void_p, c_void_p),
    "llama_memory_seq_rm": (c_bool, c_void_p, c_int32, c_int32, c_int32),
    "llama_memory_seq_cp": (None, c_void_p, c_int32, c_int32, c_int32, c_int32),
    "llama_vocab_n_tokens": (c_int32, c_void_p),
    "llama_vocab_is_eog": (c_bool, c_void_p, c_int32),
    "llama_tokenize": (c_int32, c_void_p, c_char_p, c_int32, Int32s, c_int32, c_bool, c_bool),
}


class ErrorLog:
    """Suppresses llama.cpp's log, but keeps its last error lines for exception messages."""

    _ERROR = 4
    _CONTINUED = 5

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._level = 0
        self.callback = LogCallback(self._write)

    def _write(self, level: int, text: bytes, _user: object) -> None:
        self._level = self._level if level == self._CONTINUED else level
        if self._level == self._ERROR:
            self._lines = [*self._lines, text.decode("utf-8", "replace").strip()][-3:]

    def pop_errors(self) -> str:
        """Return the last error lines as one line, and clear them."""
        lines, self._lines = self._lines, []
        return "; ".join(filter(None, lines)) or "llama.cpp reported no error message"


log = ErrorLog()


@functools.cache
def load_library() -> ctypes.CDLL:
    """Load the library with typed functions. Raises SettingsError if the wheel is missing or has another version."""
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        raise SettingsError(f"the llama.cpp engine requires the package {WHEEL}, which is not installed")
    try:
        library = ctypes.CDLL(str(next(Path(spec.origin).parent.glob("xllamacpp*.so"))))
        for name, (result, *arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (StopIteration, OSError, AttributeError) as error:
        reason = str(error) or "it contains no library"
        raise SettingsError(f"the llama.cpp engine requires the package {WHEEL}: {reason}") from error
    _check_layout(library)
    library.llama_log_set(log.callback, None)
    library.llama_backend_init()
    return library


def _check_layout(library: ctypes.CDLL) -> None:
    for params, defaults in (
        (library.llama_context_default_params(), _CONTEXT_DEFAULTS),
        (library.llama_model_default_params(), _MODEL_DEFAULTS),
    ):
        if any(params.get(offset) != value for offset, value in defaults.items()):
            raise SettingsError(f"the llama.cpp engine requires the package {WHEEL}, but another version is installed")
