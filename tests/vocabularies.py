"""Copies of the demo model's GGUF file with another pre-tokenizer or another kind of tokenizer."""

from __future__ import annotations

import struct
from pathlib import Path

from subnet.models.gguf import read_header
from subnet.models.resolve import resolve

_KINDS = {"tokenizer.ggml.pre": b"smollm", "tokenizer.ggml.model": b"gpt2"}


def vocabulary(path: Path, **values: str) -> Path:
    """Write the metadata of the demo model, without weights; `pre` and `model` replace those of its tokenizer."""
    demo = resolve(None, print)
    data = demo.read_bytes()[: read_header(demo).size]
    # The number of tensors.
    data = data[:8] + struct.pack("<Q", 0) + data[16:]
    path.write_bytes(_changed(data, values))
    return path


def model(path: Path, pre: str) -> Path:
    """Write the demo model with another pre-tokenizer. Its name gives or takes the difference in length, so that all
    else stays where it is.
    """
    demo = resolve(None, print)
    size, name = read_header(demo).size, str(read_header(demo).metadata["general.name"]).encode()
    data = demo.read_bytes()
    new = name + b"-" * 99
    new = new[: len(name) + len(_KINDS["tokenizer.ggml.pre"]) - len(pre)]
    header = _with_string(data[:size], "general.name", name, new)
    path.write_bytes(_changed(header, {"pre": pre}) + data[size:])
    return path


def _changed(data: bytes, values: dict[str, str]) -> bytes:
    for key, value in values.items():
        data = _with_string(data, f"tokenizer.ggml.{key}", _KINDS[f"tokenizer.ggml.{key}"], value.encode())
    return data


def _with_string(data: bytes, key: str, old: bytes, new: bytes) -> bytes:
    start = key.encode() + struct.pack("<I", 8)
    before, after = (start + struct.pack("<Q", len(value)) + value for value in (old, new))
    assert data.count(before) == 1
    return data.replace(before, after)
