"""Fingerprints of weights: two nodes whose models have the same fingerprint give the same answers.

Weights have gigabytes, so only parts of the files are read: the header, which has the tensor table, the first and last
mebibyte of the data, and samples in between. A file whose only difference is in a few tensors that no sample hits has
the same fingerprint. Paths and times have no influence.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from subnet.errors import SettingsError
from subnet.models.gguf import Header

# Bytes that are read after the header and at the end of a file, and number and size of the samples in between.
_EDGE = 1 << 20
_SAMPLES, _SAMPLE_SIZE = 128, 4096
# A header of a safetensors file is not longer; https://github.com/huggingface/safetensors documents its format.
_MAX_HEADER = 100_000_000

_SPLIT = re.compile(r"(?P<name>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")
_MAX_SPLITS = 1024
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


class _Index(msgspec.Struct):
    """List of the files of a model that has several. `weight_map` has the file of each tensor."""

    weight_map: dict[str, str]


def fingerprint_gguf(path: Path, header: Header) -> str:
    """Return the fingerprint of the GGUF file at `path`, and of the files that it is split into.

    It is "" if one of them is missing. Raises SettingsError if a file cannot be read.
    """
    first, *others = _splits(path, header)
    return _fingerprint([(first, header.size), *((other, 0) for other in others)])


def fingerprint_folder(folder: Path) -> str:
    """Return the fingerprint of the safetensors files of a model in Hugging Face format; "" if it has none.

    It is "" if one of them is missing. Raises SettingsError if a file cannot be read.
    """
    return _fingerprint([(path, None) for path in _safetensors(folder)])


def _fingerprint(files: Sequence[tuple[Path, int | None]]) -> str:
    """Return the fingerprint of `files`, each with the size of its header; None: it is in the file's first 8 bytes."""
    found, name = hashlib.sha256(), ""
    try:
        for path, header in files:
            name = str(path)
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if header is None:
                    header = min(int.from_bytes(file.read(8), "little"), _MAX_HEADER)
                found.update(size.to_bytes(8, "little"))
                for offset, length in _parts(size, header + _EDGE):
                    file.seek(offset)
                    found.update(file.read(length))
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise SettingsError(f"{name} cannot be read: {error.strerror}") from error
    return found.hexdigest() if files else ""


def _parts(size: int, head: int) -> Iterator[tuple[int, int]]:
    """Yield offset and length of the parts of a file to read."""
    middle = size - head - _EDGE
    if middle <= _SAMPLES * _SAMPLE_SIZE:
        yield 0, size
        return
    yield 0, head
    for number in range(_SAMPLES):
        yield head + middle * number // _SAMPLES, _SAMPLE_SIZE
    yield size - _EDGE, _EDGE


def _splits(path: Path, header: Header) -> list[Path]:
    """Return the files of a model, in order, of which `path` is the first or the only one."""
    match = _SPLIT.fullmatch(path.name)
    count = header.metadata.get("split.count")
    if match is None or int(match["count"]) != count or not 1 < count <= _MAX_SPLITS:
        return [path]
    return [path.with_name(f"{match['name']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]


def _safetensors(folder: Path) -> list[Path]:
    """Return the weight files, in the order of their names. Copies in other formats, as some models have, do not count.

    https://huggingface.co/docs/transformers/big_models describes the index.
    """
    if (folder / _SINGLE).exists():
        return [folder / _SINGLE]
    try:
        index = msgspec.json.decode((folder / _INDEX).read_bytes(), type=_Index)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return sorted(folder.glob("*.safetensors"))
    return [folder / name for name in sorted(set(index.weight_map.values())) if Path(name).name == name]
