"""Reading GGUF files, and the cards and tokenizers made from them."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from subnet.engines.llama_cpp import NativeTokenizer
from subnet.errors import SettingsError
from subnet.models.card import describe
from subnet.models.encoders import load_encoder
from subnet.models.gguf import read_metadata
from subnet.models.names import model_id_from_path
from subnet.models.resolve import resolve
from subnet.models.vocabulary import Vocabulary
from subnet.node_info import TokenizerArtefact, digest

KINDS = {"u8": 0, "i8": 1, "u16": 2, "i16": 3, "u32": 4, "i32": 5, "f32": 6, "bool": 7, "u64": 10, "i64": 11, "f64": 12}
FORMS = {"u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "f32": "f", "bool": "?"} | {
    "u64": "Q", "i64": "q", "f64": "d"
}  # fmt: skip


def string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def encode(kind: str, value: Any) -> bytes:
    """Encode a value preceded by its type; "[kind]" is an array."""
    if kind == "str":
        return struct.pack("<I", 8) + string(value)
    if kind.startswith("["):
        items = [encode(kind[1:-1], item) for item in value]
        inner = encode(kind[1:-1], "" if kind == "[str]" else [] if kind[1] == "[" else 0)[:4]
        return struct.pack("<I", 9) + inner + struct.pack("<Q", len(items)) + b"".join(item[4:] for item in items)
    return struct.pack("<I", KINDS[kind]) + struct.pack("<" + FORMS[kind], value)


def gguf(entries: dict[str, tuple[str, Any]], version: int = 3) -> bytes:
    body = b"".join(string(key) + encode(kind, value) for key, (kind, value) in entries.items())
    return b"GGUF" + struct.pack("<IQQ", version, 0, len(entries)) + body


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


EVERY_TYPE: dict[str, tuple[str, Any]] = {
    **{f"a.{kind}": (kind, 1) for kind in KINDS},
    "a.text": ("str", "añ"),
    "a.texts": ("[str]", ["x", "", "日本"]),
    "a.numbers": ("[i32]", [1, -2, 3]),
    "a.nested": ("[[u8]]", [[1], [2, 3]]),
}


def test_every_value_type_is_read(tmp_path: Path) -> None:
    """Scalars, strings, arrays and nested arrays of a GGUF file are read unchanged, in versions 2 and 3."""
    for version in (2, 3):
        found = read_metadata(write(tmp_path / "m.gguf", gguf(EVERY_TYPE, version)))
        assert list(found) == list(EVERY_TYPE)
        assert found["a.text"] == "añ"
        assert found["a.texts"] == [b"x", b"", "日本".encode()]
        assert found["a.numbers"].tolist() == [1, -2, 3]
        assert [part.tolist() for part in found["a.nested"]] == [[1], [2, 3]]
        assert all(found[f"a.{kind}"] == 1 for kind in KINDS)


@given(st.integers(0, len(gguf(EVERY_TYPE)) - 1))
def test_a_truncated_file_raises_a_one_line_error(tmp_path_factory: pytest.TempPathFactory, size: int) -> None:
    """A GGUF file truncated anywhere raises a SettingsError of one line."""
    path = write(tmp_path_factory.getbasetemp() / "cut.gguf", gguf(EVERY_TYPE)[:size])
    with pytest.raises(SettingsError) as caught:
        read_metadata(path)
    assert "\n" not in caught.value.message


@given(st.binary(max_size=300), st.integers(0, len(gguf(EVERY_TYPE)) - 1))
def test_corrupt_bytes_raise_only_settings_errors(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int
) -> None:
    """A GGUF file with any bytes overwritten gives metadata or a SettingsError, never another error."""
    data = gguf(EVERY_TYPE)
    path = write(tmp_path_factory.getbasetemp() / "junk.gguf", data[:at] + junk + data[at + len(junk) :])
    with contextlib.suppress(SettingsError):
        read_metadata(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no such thing",
        gguf({}, version=1),
        gguf({}, version=9),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63),
        gguf({})[:-8] + struct.pack("<Q", 1) + string("a") + struct.pack("<IIQ", 9, 8, 2**62),
        gguf({})[:-8] + struct.pack("<Q", 1) + string("a") + struct.pack("<I", 77),
        gguf({"a": ("[[[[[[u8]]]]]]", [[[[[[1]]]]]])}),
    ],
)
def test_an_invalid_gguf_file_is_rejected(tmp_path: Path, data: bytes) -> None:
    """Files that are empty, foreign, of an unknown version or type, too long or nested too deeply are rejected."""
    with pytest.raises(SettingsError, match="is not a GGUF file"):
        read_metadata(write(tmp_path / "m.gguf", data))


def test_model_ids_omit_the_quantisation() -> None:
    """A model id is the file name without its quantisation suffix."""
    names = {
        "SmolLM2-135M-Instruct.Q4_1.gguf": "SmolLM2-135M-Instruct",
        "Llama-3.2-1B-Instruct-Q4_K_M.gguf": "Llama-3.2-1B-Instruct",
        "gemma-2b-it-IQ3_XXS.gguf": "gemma-2b-it",
        "Qwen2.5-7B-f16.gguf": "Qwen2.5-7B",
        "plain.gguf": "plain",
    }
    assert {file: model_id_from_path(Path(file)) for file in names} == names


def test_card_of_the_demo_model() -> None:
    """The demo model's card and artefact contain everything that a gateway needs."""
    card, artefact = describe(resolve(None, print))
    assert (card.id, card.context_length) == ("SmolLM2-135M-Instruct", 8192)
    assert (card.bos_token, card.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert card.stop_tokens == (0, 2)
    assert "<|im_start|>" in (card.chat_template or "")
    assert card.tokenizer == digest(artefact)
    tokenizer = TokenizerArtefact.from_bytes(artefact)
    assert tokenizer.control == list(range(17))
    assert tokenizer.merges == list(range(17, 49152))
    assert not tokenizer.add_bos


def test_context_length_and_id_are_configurable() -> None:
    """A context length above the trained one is rejected; a smaller one and a model id are used."""
    path = resolve(None, print)
    card, _ = describe(path, "mine", 512)
    assert (card.id, card.context_length) == ("mine", 512)
    with pytest.raises(SettingsError, match="expected 1 to 8192"):
        describe(path, context_length=9000)


TEXTS = [
    "Hello, world!",
    "  two  spaces\n\n\ttab",
    "日本語 🎉🦜",
    "a1b22 333",
    "<|im_end|> as text",
    "naïve façade",
    "\x00",
]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_the_bytes_that_llama_cpp_tokenizes(text: str) -> None:
    """The pieces of llama.cpp's tokens, joined, are the text, except for bytes that the vocabulary lacks."""
    path = resolve(None, print)
    pieces = TokenizerArtefact.from_bytes(describe(path)[1]).pieces
    with NativeTokenizer(path) as native:
        ids = native.tokenize(text)
    known = {piece for piece in pieces if len(piece) == 1}
    expected = bytes(byte for byte in text.encode() if bytes([byte]) in known)
    assert b"".join(pieces[token] for token in ids) == expected
    assert not set(ids) & set(range(17))


WORDS = ["h", "e", "l", "o", "w", "r", "d", "▁", "he", "ll", "llo", "hello", "▁hello", "▁w", "or", "ld", "▁world", "é"]


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a GGUF file with a small SentencePiece vocabulary and no weights."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]
    types = [2, 3, 3, *[6] * 256, *[1] * len(WORDS)]
    scores = [0.0] * 259 + [-float(index) for index in range(len(WORDS))]
    entries: dict[str, tuple[str, Any]] = {
        "general.architecture": ("str", "llama"),
        "llama.context_length": ("u32", 64),
        "tokenizer.ggml.model": ("str", "llama"),
        "tokenizer.ggml.tokens": ("[str]", tokens),
        "tokenizer.ggml.token_type": ("[i32]", types),
        "tokenizer.ggml.scores": ("[f32]", scores),
        "tokenizer.ggml.bos_token_id": ("u32", 1),
        "tokenizer.ggml.eos_token_id": ("u32", 2),
        "tokenizer.ggml.unknown_token_id": ("u32", 0),
        "tokenizer.chat_template": ("str", "usual"),
        "tokenizer.chat_template.tool_use": ("str", "tools"),
    }
    return write(tmp_path_factory.mktemp("spm") / "tiny-Q8_0.gguf", gguf(entries))


@given(text=st.text("helowrdé 日\n", max_size=20))
def test_sentencepiece_models_tokenize_as_in_llama_cpp(sentencepiece: Path, text: str) -> None:
    """A SentencePiece vocabulary gives llama.cpp's ids, byte fallback included."""
    artefact = TokenizerArtefact.from_bytes(describe(sentencepiece)[1])
    assert artefact.by_character
    assert artefact.add_bos
    assert artefact.bos_id == 1
    with NativeTokenizer(sentencepiece) as native:
        expected = native.tokenize(text)
    assert load_encoder(artefact).encode(text).tolist() == expected
    joined = b"".join(artefact.pieces[token] for token in expected)
    assert joined == (b" " + text.encode() if text else b"")


def test_chat_templates(sentencepiece: Path) -> None:
    """The card has the chat template, and the one named "tool_use" for requests with tools."""
    card = describe(sentencepiece)[0]
    assert (card.chat_template, card.tool_template) == ("usual", "tools")


def test_end_tokens() -> None:
    """The text "<|end|>" ends a turn, except in Harmony vocabularies, where it ends a message."""
    types = [3, 3, 3, 3]
    harmony = Vocabulary("gpt2", ["<|start|>", "<|end|>", "<|return|>", "<|call|>"], types)
    assert (harmony.end_tokens(), harmony.control_tokens()) == ([2, 3], [0, 1, 2, 3])
    assert Vocabulary("gpt2", ["<|user|>", "<|end|>", "a", "<|endoftext|>"], [3, 3, 1, 3]).end_tokens() == [1, 3]


def test_an_unknown_tokenizer_asks_for_a_tokenizer_json(tmp_path: Path) -> None:
    """An unknown pre-tokenizer or tokenizer type raises an error that says what to do."""
    entries: dict[str, tuple[str, Any]] = {
        "tokenizer.ggml.model": ("str", "gpt2"),
        "tokenizer.ggml.pre": ("str", "novel"),
        "tokenizer.ggml.tokens": ("[str]", ["a"]),
    }
    with pytest.raises(SettingsError, match=r"unknown pre-tokenizer 'novel': pass a tokenizer\.json with --tokenizer"):
        describe(write(tmp_path / "m.gguf", gguf(entries)))
    entries["tokenizer.ggml.model"] = ("str", "bert")
    with pytest.raises(SettingsError, match="bert"):
        describe(write(tmp_path / "m.gguf", gguf(entries)))


def test_a_given_tokenizer_json_is_used(tmp_path: Path, sentencepiece: Path) -> None:
    """A given tokenizer.json replaces the GGUF file's tokenizer, and is rejected if it is invalid."""
    given = Tokenizer(models.BPE({"<s>": 0, "a": 1, "b": 2, "ab": 3}, [("a", "b")]))
    given_text: str = given.to_str()
    path = tmp_path / "tokenizer.json"
    path.write_text(given_text, encoding="utf-8")
    artefact = TokenizerArtefact.from_bytes(describe(resolve(None, print), tokenizer_json=path)[1])
    assert (artefact.tokenizer_json, artefact.pattern, artefact.merges) == (given_text, None, None)
    added = Tokenizer.from_str(given_text)
    added.add_tokens(["<tool>"])
    path.write_text(added.to_str(), encoding="utf-8")
    artefact = TokenizerArtefact.from_bytes(describe(resolve(None, print), tokenizer_json=path)[1])
    assert artefact.user_defined == [added.token_to_id("<tool>")]
    path.write_text("{", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"not a valid tokenizer\.json"):
        describe(sentencepiece, tokenizer_json=path)
