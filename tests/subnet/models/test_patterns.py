"""Every pre-tokenizer of llama.cpp, compared with llama.cpp itself on a real vocabulary."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from subnet.engines.llama_cpp import NativeTokenizer
from subnet.models.card import describe
from subnet.models.encoders import load_encoder
from subnet.models.patterns import CHARACTER_LEVEL, PASSES, PATTERNS
from subnet.node_info import TokenizerArtefact
from tests.vocabularies import vocabulary

DISTINCT = {splitter: name for name, splitter in [*PATTERNS.items(), *PASSES.items()]}
GROUPING = {PASSES[name] for name in ("afmoe", "tiny_aya")}
"""Splitters for which llama.cpp puts the first digits of a group to the characters before it."""

PARTS = [
    *"abcXYZ019.,!?-_/()[]{}<>|`~$+=^#@:;\"\\*&%'",
    *(" ", "  ", "\n", "\t", "\r\n", "'s", "'LL", "'re", "1234"),
    *("\u00e9", "\u00df", "\u00c9", "\u03a3", "\u0434", "\u65e5\u672c", "\u3042", "\ud55c\uad6d", "\u0e01", "\u2192"),
    *("\U0001f600", "\u20ac", "\u00bd", "\u00a0", "\u2003", "\u3002"),
]


def texts(count: int) -> list[str]:
    draw = random.Random(7)
    return ["".join(draw.choices(PARTS, k=draw.randrange(1, 14))) for _ in range(count)]


def test_all_names_are_known() -> None:
    """There is a splitter for each of llama.cpp's 91 pre-tokenizers but that of one kind of embedding models."""
    names = [*PATTERNS, *PASSES, *CHARACTER_LEVEL]
    assert len(names) == len(set(names)) == 90
    assert {"deepseek-v3", "kimi-k2", "glm5", "falcon", "hunyuan-dense", "seed-coder", "exaone-moe", "gemma4"} <= {
        *names
    }


@pytest.mark.parametrize("name", sorted(DISTINCT.values()))
def test_splits_as_llama_cpp_does(name: str, tmp_path: Path) -> None:
    """With each splitter, a real vocabulary gives llama.cpp's token ids for random texts."""
    path = vocabulary(tmp_path / "vocabulary.gguf", pre=name)
    encoder = load_encoder(TokenizerArtefact.from_bytes(describe(path)[1]))
    examples = [text for text in texts(200) if PASSES.get(name) not in GROUPING or not any(map(str.isdigit, text))]
    with NativeTokenizer(path) as native:
        assert {text: encoder.encode(text).tolist() for text in examples} == {
            text: native.tokenize(text) for text in examples
        }


@pytest.mark.parametrize("name", ["afmoe", "superbpe"])
def test_a_long_number_takes_little_time(name: str, tmp_path: Path) -> None:
    """Digits are grouped from the end, in a time that does not grow with the square of their number."""
    path = vocabulary(tmp_path / "vocabulary.gguf", pre=name)
    artefact = TokenizerArtefact.from_bytes(describe(path)[1])
    encoder = load_encoder(artefact)
    ids = encoder.encode("1" * 500_000)
    assert b"".join(artefact.pieces[token] for token in ids) == b"1" * 500_000
    assert artefact.pieces[encoder.encode("12345")[0]] in (b"1", b"12")


def test_a_file_without_a_pre_tokenizer_gets_the_default_one(tmp_path: Path) -> None:
    """A file that names no pre-tokenizer is read as llama.cpp reads it."""
    path = vocabulary(tmp_path / "vocabulary.gguf", pre="default")
    unnamed = tmp_path / "unnamed.gguf"
    unnamed.write_bytes(path.read_bytes().replace(b"tokenizer.ggml.pre", b"tokenizer.ggml.per"))
    assert describe(unnamed)[0].tokenizer == describe(path)[0].tokenizer
