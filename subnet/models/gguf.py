"""Reader for the metadata of GGUF files, versions 2 and 3, little-endian.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Tensors are not read. Every length is checked against
the file size before it is used.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from subnet.errors import SettingsError

_BOOL, _STRING, _ARRAY = 7, 8, 9
_SCALARS = {0: "B", 1: "b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", _BOOL: "?", 10: "<Q", 11: "<q", 12: "<d"}
_MAX_DEPTH = 4
_U64 = struct.Struct("<Q")

Metadata = dict[str, Any]
"""Mapping of keys to int, float, bool, str, list[bytes] (array of strings), numpy array (numbers) or list (arrays)."""


class Header(NamedTuple):
    """Metadata of a file, and the number of bytes up to their end, where the tensor table begins."""

    metadata: Metadata
    size: int


def read_metadata(path: Path) -> Metadata:
    """Return the metadata of the GGUF file at `path`. Raises SettingsError if it is unreadable or malformed."""
    return read_header(path).metadata


def read_header(path: Path) -> Header:
    """Return the header of the GGUF file at `path`. Raises SettingsError if it is unreadable or malformed."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return parse_header(data)
    except (OSError, ValueError) as error:
        problem = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else f"is not a GGUF file: {error}"
        raise SettingsError(f"{path} {problem}") from error


def parse_header(data: mmap.mmap | bytes) -> Header:
    """Return the header of a GGUF file with these bytes. Raises ValueError if it is malformed."""
    return _Reader(data).header()


class _Reader:
    """Cursor over the file's bytes. All methods raise ValueError for malformed data."""

    def __init__(self, data: mmap.mmap | bytes) -> None:
        self._data = data
        self._size = len(data)
        self._offset = 0

    def header(self) -> Header:
        if self._read(4) != b"GGUF":
            raise ValueError("it does not start with the bytes GGUF")
        version = self._scalar(4)
        if version not in (2, 3):
            raise ValueError(f"unsupported version {version}: expected 2 or 3")
        self._scalar(10)
        count = self._count(13)
        metadata = dict(self._entry() for _ in range(count))
        return Header(metadata, self._offset)

    def _entry(self) -> tuple[str, Any]:
        key = self._string().decode("utf-8", "replace")
        value = self._value(self._scalar(4), 0)
        return key, value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def _value(self, kind: int, depth: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array(depth + 1)
        return self._scalar(kind)

    def _array(self, depth: int) -> Any:
        kind = self._scalar(4)
        if kind == _STRING:
            return self._strings(self._count(8))
        if kind == _ARRAY:
            if depth > _MAX_DEPTH:
                raise ValueError("arrays are nested too deeply")
            return [self._array(depth + 1) for _ in range(self._count(12))]
        dtype = np.dtype(_format(kind))
        return np.frombuffer(self._read(self._count(dtype.itemsize) * dtype.itemsize), dtype)

    def _strings(self, count: int) -> list[bytes]:
        # The inner loop of reading a vocabulary: hundreds of thousands of strings.
        data, at, unpack, strings = self._data, self._offset, _U64.unpack_from, []
        try:
            for _ in range(count):
                end = at + 8 + unpack(data, at)[0]
                strings.append(data[at + 8 : end])
                at = end
        except (struct.error, OverflowError, IndexError) as error:
            raise ValueError("the file is truncated") from error
        if at > self._size:
            raise ValueError("the file is truncated")
        self._offset = at
        return strings

    def _string(self) -> bytes:
        return self._read(self._scalar(10))

    def _count(self, min_size: int) -> int:
        """Read the length of an array whose items take at least `min_size` bytes each."""
        count: int = self._scalar(10)
        if count * min_size > self._size - self._offset:
            raise ValueError("the file is truncated")
        return count

    def _scalar(self, kind: int) -> Any:
        format_code = _format(kind)
        return struct.unpack(format_code, self._read(struct.calcsize(format_code)))[0]

    def _read(self, size: int) -> bytes:
        if size > self._size - self._offset:
            raise ValueError("the file is truncated")
        self._offset += size
        return self._data[self._offset - size : self._offset]


def _format(kind: int) -> str:
    format_code = _SCALARS.get(kind)
    if format_code is None:
        raise ValueError(f"unknown value type {kind}")
    return format_code
