"""Fingerprints of weights: the same for copies, different for other weights."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from subnet.engines.echo import EchoEngine, EchoOptions
from subnet.models.card import describe
from subnet.models.pretrained import describe_pretrained
from subnet.models.resolve import resolve
from subnet.node_info import fingerprint_facts
from tests.pretrained import folder_of
from tests.subnet.models.test_gguf import gguf, write

SPLIT: dict[str, tuple[str, Any]] = {
    "split.count": ("u16", 2),
    "tokenizer.ggml.model": ("str", "gpt2"),
    "tokenizer.ggml.pre": ("str", "smollm"),
    "tokenizer.ggml.tokens": ("[str]", ["a"]),
    "tokenizer.ggml.token_type": ("[i32]", [1]),
}
MIB = 1 << 20


def safetensors(path: Path, tensors: Mapping[str, bytes]) -> Path:
    """Write a file with one row of bytes per tensor, see https://github.com/huggingface/safetensors."""
    header, offset = {}, 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    encoded = msgspec.json.encode(header)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write(path, struct.pack("<Q", len(encoded)) + encoded + b"".join(tensors.values()))


def changed(path: Path, target: Path, offset: int) -> Path:
    """Copy a file and change one byte of it; a negative `offset` counts from the end."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    return write(target, bytes(data))


def weights_of(folder: Path) -> str:
    return describe_pretrained(folder)[0].weights


def test_a_copy_of_a_gguf_file_has_the_same_fingerprint(tmp_path: Path) -> None:
    """Path and time of a GGUF file have no influence on the fingerprint; each byte of its end has."""
    path = resolve(None, print)
    weights = describe(path)[0].weights
    copy = tmp_path / "other-name.gguf"
    shutil.copyfile(path, copy)
    os.utime(copy, (1, 1))
    assert describe(copy)[0].weights == weights != ""
    for offset in (-1, -MIB, 4 * MIB):
        edited = describe(changed(path, tmp_path / "edited.gguf", offset))[0].weights
        assert (edited == weights) == (offset == 4 * MIB)
    shorter = write(tmp_path / "shorter.gguf", path.read_bytes()[:-1])
    assert describe(shorter)[0].weights != weights


def test_every_large_part_of_a_file_counts(tmp_path: Path) -> None:
    """A change of one hundredth of the data, anywhere between its ends, changes the fingerprint."""
    path = resolve(None, print)
    weights, data = describe(path)[0].weights, path.read_bytes()
    size = len(data) // 100
    for start in (10, 50, 90):
        edited = bytearray(data)
        edited[start * size : (start + 1) * size] = bytes(size)
        assert describe(write(tmp_path / "edited.gguf", bytes(edited)))[0].weights != weights


def test_all_parts_of_a_split_gguf_file_count(tmp_path: Path) -> None:
    """The fingerprint of a split file depends on each of its files, and is unknown while one is missing."""
    first = write(tmp_path / "m-00001-of-00002.gguf", gguf(SPLIT) + b"1")
    assert describe(first)[0].weights == ""
    second = write(tmp_path / "m-00002-of-00002.gguf", gguf({}) + b"2")
    weights = describe(first)[0].weights
    write(second, gguf({}) + b"3")
    assert describe(first)[0].weights not in ("", weights)
    alone = write(tmp_path / "alone.gguf", first.read_bytes())
    assert describe(alone)[0].weights not in ("", weights)


def test_a_folder_has_the_fingerprint_of_its_weight_files(tmp_path: Path) -> None:
    """Folders with the same weight files have the same fingerprint; other documents and formats have no influence."""
    tensors = {"a": b"1" * 10, "b": b"2" * 10}
    one, two = folder_of(tmp_path / "one"), folder_of(tmp_path / "two", config={"n_ctx": 7})
    assert weights_of(one) == ""
    for folder in (one, two):
        os.utime(safetensors(folder / "model.safetensors", tensors), (len(folder.name), 1))
    safetensors(two / "consolidated.safetensors", {"c": b"3"})
    weights = weights_of(one)
    assert weights == weights_of(two) != ""
    safetensors(two / "model.safetensors", {**tensors, "b": b"2" * 9 + b"3"})
    assert weights_of(two) not in ("", weights)


def test_a_folder_of_several_files(tmp_path: Path) -> None:
    """The files in the index count, in the order of their names; without one of them the fingerprint is unknown."""
    index = {"weight_map": {"b": "model-2.safetensors", "a": "model-1.safetensors", "c": "../model-1.safetensors"}}
    one, two = (folder_of(tmp_path / name) for name in ("one", "two"))
    for folder in (one, two):
        write(folder / "model.safetensors.index.json", msgspec.json.encode(index))
        safetensors(folder / "model-1.safetensors", {"a": b"1"})
        assert weights_of(folder) == ""
        safetensors(folder / "model-2.safetensors", {"b": b"2"})
    safetensors(two / "unused.safetensors", {"c": b"3"})
    assert weights_of(one) == weights_of(two) != ""
    safetensors(two / "model-2.safetensors", {"b": b"3"})
    assert weights_of(one) != weights_of(two)


@pytest.mark.parametrize("data", [b"", b"\xff" * 8, b"{}"])
def test_files_that_are_not_safetensors(tmp_path: Path, data: bytes) -> None:
    """A file without a valid header has a fingerprint, too: whether it can be loaded is for the engine to say."""
    folder = folder_of(tmp_path / "m")
    write(folder / "model.safetensors", data)
    assert weights_of(folder)


def test_fingerprints_of_servers() -> None:
    """What a server reports makes a fingerprint, which differs between models and types of servers."""
    assert fingerprint_facts("vllm", None) == fingerprint_facts("vllm", "") == ""
    known = [fingerprint_facts(server, model) for server in ("vllm", "sglang") for model in ("m", "n")]
    assert len({*known, fingerprint_facts("vllm", "m", 1), fingerprint_facts("vllm", "m", 2)}) == 6


def test_the_echo_engine_declares_what_changes_its_answers() -> None:
    """Echo nodes have the same fingerprint unless their answers differ, whatever their names and rates are."""
    weights = EchoEngine().card.weights
    assert EchoEngine("other", EchoOptions(rate=5, delay=1, capacity=1, resume="replay")).card.weights == weights
    assert EchoEngine(options=EchoOptions(size=7)).card.weights not in ("", weights)
