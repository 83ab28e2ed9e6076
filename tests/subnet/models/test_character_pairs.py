"""BPE over characters, of SentencePiece and Gemma 4, compared with llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet.engines.llama_cpp import NativeTokenizer
from subnet.models.card import describe
from subnet.models.encoder import Encoder
from subnet.models.encoders import load_encoder
from subnet.node_info import TokenizerArtefact
from tests.subnet.models.test_gguf import gguf, write

SINGLE = ["a", "b", "c", "\u2581", "\u00e9", "\u8a9e", "\U0001f600", "\n", "<"]
# In the order of their scores. "c<c" is never produced, as no two of its parts merge; "\u65e5" has no token of its own.
MERGED = [
    *("ab", "\u2581a", "bc", "\u2581\u2581", "abc", "\u2581ab", "ca", "c<c", "\u8a9e\u8a9e"),
    *("\u00e9a", "\U0001f600b", "\u65e5\u672c", "b\u2581", "b\u2581c", "<b"),
]
TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *SINGLE, *MERGED]
TYPES = [2, 3, 3, *[6] * 256, *[1] * (len(SINGLE) + len(MERGED))]
TEXT = st.text("abc \u00e9\u00e8\u8a9e\u8a98\u65e5\u672c\U0001f600\U0001f601\n<\u2581\u0301", max_size=16)


def entries(kind: str, **more: tuple[str, Any]) -> dict[str, tuple[str, Any]]:
    return {
        "general.architecture": ("str", "llama"),
        "tokenizer.ggml.model": ("str", kind),
        "tokenizer.ggml.bos_token_id": ("u32", 1),
        "tokenizer.ggml.eos_token_id": ("u32", 2),
        "tokenizer.ggml.unknown_token_id": ("u32", 0),
    } | {f"tokenizer.ggml.{name}": value for name, value in more.items()}


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a SentencePiece vocabulary, in which some tokens have a space after something else."""
    scores = [0.0] * (259 + len(SINGLE)) + [-float(index + 1) for index in range(len(MERGED))]
    vocabulary = {"tokens": ("[str]", TOKENS), "token_type": ("[i32]", TYPES), "scores": ("[f32]", scores)}
    return write(tmp_path_factory.mktemp("spm") / "spm.gguf", gguf(entries("llama", **vocabulary)))


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a vocabulary of Gemma 4's kind, with a run of newlines that no merge produces."""
    tokens = [*TOKENS, "\n\n\n"]
    known = [*SINGLE, *MERGED]
    pairs = [
        f"{text[:cut]} {text[cut:]}"
        for text in MERGED
        for cut in range(1, len(text))
        if text[:cut] in known and text[cut:] in known
    ]
    vocabulary = {"tokens": ("[str]", tokens), "token_type": ("[i32]", [*TYPES, 1]), "merges": ("[str]", pairs)}
    return write(tmp_path_factory.mktemp("gemma") / "gemma.gguf", gguf(entries("gemma4", **vocabulary)))


def encoder_of(path: Path) -> Encoder:
    artefact = TokenizerArtefact.from_bytes(describe(path)[1])
    assert artefact.by_character
    return load_encoder(artefact)


@given(text=TEXT)
def test_sentencepiece(sentencepiece: Path, text: str) -> None:
    """Characters that are missing, or only in longer tokens, share bytes with others or are spaces: all as llama.cpp
    has it.
    """
    with NativeTokenizer(sentencepiece) as native:
        assert encoder_of(sentencepiece).encode(text).tolist() == native.tokenize(text)


@given(text=TEXT)
def test_gemma(gemma: Path, text: str) -> None:
    """Gemma 4's tokenizer merges within lines, and knows runs of newlines that no merge produces."""
    with NativeTokenizer(gemma) as native:
        assert encoder_of(gemma).encode(text).tolist() == native.tokenize(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("c<c", ["c", "<", "c"]),
        ("\u8a98", ["<0xE8>", "<0xAA>", "<0x98>"]),
        ("\u65e5", ["<0xE6>", "<0x97>", "<0xA5>"]),
        ("b c", ["b\u2581c"]),
        ("\n\n\n", ["\n\n\n"]),
    ],
)
def test_tokens_of_words(gemma: Path, text: str, expected: list[str]) -> None:
    """A token that is not produced from its own text is not one in a word either; missing characters become bytes."""
    tokens = [*TOKENS, "\n\n\n"]
    assert [tokens[token] for token in encoder_of(gemma).encode(text)] == expected


def test_tokens_that_are_never_produced(sentencepiece: Path) -> None:
    """A token that merging does not produce is left out, so that no word is taken for it as a whole."""
    merges = TokenizerArtefact.from_bytes(describe(sentencepiece)[1]).merges or []
    assert {TOKENS[token] for token in merges} == {*TOKENS[3:]} - {"c<c"}
