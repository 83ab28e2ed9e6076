"""Requantizes GGUF files with llama.cpp's own functions, to test other types of weights without a download.

The weights lose precision twice, so the answers are poor, but kernels and rounding are those of any file of the type.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from subnet.engines.llama_cpp.native import load_library
from subnet.models.gguf import read_header

TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8} | {
    f"Q{bits}_K": 8 + bits for bits in range(2, 7)
}
"""Numbers of types of weights in GGUF files, by name."""

_SUPER_BLOCK = 256
# As llama.cpp does for rows that super-blocks do not divide.
_INSTEAD = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
_ALIGNMENT = 32
_ROWS_AT_ONCE = 4096


class _Tensor(NamedTuple):
    """Entry of the tensor table. `entry` is the position of its type, which the offset of its data follows."""

    entry: int
    type: int
    row: int
    rows: int
    offset: int


def requantize(source: Path, target: Path, kind: str) -> None:
    """Write the model at `source` with its matrices as the type `kind`, one of TYPES, to `target`."""
    library = load_library()
    library.ggml_row_size.restype = library.ggml_quantize_chunk.restype = ctypes.c_size_t
    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        table, tensors = _read_table(data, read_header(source).size)
        start = _aligned(len(table))
        with target.open("wb") as output:
            output.write(table.ljust(start, b"\0"))
            for tensor in tensors:
                struct.pack_into("<IQ", table, tensor.entry, _new_type(tensor, kind), output.tell() - start)
                for part in _parts(library, data, tensor, start, kind):
                    output.write(part)
                output.write(bytes(_aligned(output.tell()) - output.tell()))
            output.seek(0)
            output.write(table)


def _read_table(data: mmap.mmap, at: int) -> tuple[bytearray, list[_Tensor]]:
    """Return the file up to the end of the tensor table, which begins at `at`, and the table's entries."""
    tensors = []
    for _ in range(struct.unpack_from("<Q", data, 8)[0]):
        at += 8 + struct.unpack_from("<Q", data, at)[0]
        (dimensions,) = struct.unpack_from("<I", data, at)
        row, *others = struct.unpack_from(f"<{dimensions}Q", data, at + 4)
        at += 4 + 8 * dimensions
        kind, offset = struct.unpack_from("<IQ", data, at)
        tensors.append(_Tensor(at, kind, row, int(np.prod(others, dtype=np.int64)) if others else 0, offset))
        at += 12
    return bytearray(data[:at]), tensors


def _new_type(tensor: _Tensor, kind: str) -> int:
    # Vectors, such as norms, are never quantized.
    if not tensor.rows:
        return tensor.type
    return TYPES[_INSTEAD.get(kind, kind) if tensor.row % _SUPER_BLOCK else kind]


def _parts(library: ctypes.CDLL, data: mmap.mmap, tensor: _Tensor, start: int, kind: str) -> Iterator[bytes]:
    """Yield the data of a tensor in its new type, some rows at a time."""
    old, new, rows = tensor.type, _new_type(tensor, kind), tensor.rows or 1
    size, new_size = (library.ggml_row_size(kind, ctypes.c_int64(tensor.row)) for kind in (old, new))
    for first in range(0, rows, _ROWS_AT_ONCE):
        count = min(_ROWS_AT_ONCE, rows - first)
        at = start + tensor.offset + first * size
        content = data[at : at + count * size]
        if old == new:
            yield content
            continue
        values = _floats(library, content, old, count * tensor.row)
        output = ctypes.create_string_buffer(count * new_size)
        library.ggml_quantize_chunk(
            new, values.ctypes.data_as(ctypes.c_void_p), output, *map(ctypes.c_int64, (0, count, tensor.row)), None
        )
        yield output.raw


def _floats(library: ctypes.CDLL, content: bytes, kind: int, count: int) -> NDArray[np.float32]:
    if kind in (TYPES["F32"], TYPES["F16"]):
        return np.frombuffer(content, np.float32 if kind == TYPES["F32"] else np.float16).astype(np.float32)
    values = np.empty(count, np.float32)
    name = next(name for name, number in TYPES.items() if number == kind)
    function = getattr(library, f"dequantize_row_{name.replace('Q', 'q', 1)}")
    function(content, values.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(count))
    return values


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
