"""Tokenizers made from artefacts of both kinds, without a model."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from adapter.prompt import Tokenizer, load_tokenizer
from adapter.prompt.tokenizer import MAX_CACHED_BYTES
from subnet.errors import InvalidRequest, SettingsError
from subnet.node_info import TokenizerArtefact

PATTERN = r"\p{N}|'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
SPECIAL = ["<|start|>", "<|end|>", "<think>"]
CORPUS = ["the cat sat on the mat, and the dog didn't care: 12 345\n\n  so what? über naïve 日本語 the the"] * 3


def trained() -> tokenizers.Tokenizer:
    """Train a byte-level BPE tokenizer with 3 added tokens, 256 bytes and some merges."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(tokenizers.Regex(PATTERN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def byte_of() -> dict[str, int]:
    """Return the byte of each character with which byte-level BPE represents bytes; printable ones represent
    themselves.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [value for value in range(256) if value not in printable]
    return {chr(value): value for value in printable} | {chr(256 + i): value for i, value in enumerate(others)}


def artefacts() -> tuple[TokenizerArtefact, TokenizerArtefact]:
    """Return the same tokenizer as merges and as a tokenizer.json."""
    tokenizer, table = trained(), byte_of()
    words = [tokenizer.id_to_token(token) or "" for token in range(tokenizer.get_vocab_size())]
    pieces = [word.encode() if word in SPECIAL else bytes(table[char] for char in word) for word in words]
    merges = list(range(len(SPECIAL), len(words)))
    common = {"pieces": pieces, "control": [0, 1], "user_defined": [2], "bos_id": 0, "add_bos": True}
    return (
        msgspec.convert(common | {"pattern": PATTERN, "merges": merges}, TokenizerArtefact, strict=False),
        msgspec.convert(common | {"tokenizer_json": tokenizer.to_str()}, TokenizerArtefact, strict=False),
    )


BYTE_PAIR, JSON = (load_tokenizer(artefact) for artefact in artefacts())
TEXT = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
        st.sampled_from([*SPECIAL, "<|en", "the", " cat", "didn't", "  ", "\r\n", "12", "語", "👩‍👧"]),
    ),
    max_size=10,
).map("".join)


def spelled(tokenizer: Tokenizer, text: str) -> str:
    return b"".join(tokenizer.pieces[token] for token in tokenizer.encode_text(text)).decode()


@given(TEXT)
def test_both_kinds_agree(text: str) -> None:
    """tiktoken with the merges gives the same tokens as the `tokenizers` package."""
    assert BYTE_PAIR.encode_text(text).tolist() == JSON.encode_text(text).tolist()
    assert BYTE_PAIR.encode_prompt(text).tolist() == JSON.encode_prompt(text).tolist()


@given(TEXT)
def test_text_never_becomes_a_control_token(text: str) -> None:
    """Tokens of a user's text include no control token, and decode to the text."""
    ids = BYTE_PAIR.encode_text(text)
    assert ids.dtype == np.int32
    assert not BYTE_PAIR.control.intersection(ids.tolist())
    assert spelled(BYTE_PAIR, text) == text


@pytest.mark.parametrize("tokenizer", [BYTE_PAIR, JSON])
def test_special_tokens(tokenizer: Tokenizer) -> None:
    """Control tokens are found only in prompts, unless a mark breaks them; user-defined tokens are found in any
    text.
    """
    text = "<|start|><think>a<|e!nd|><|end|>"
    prompt, plain = tokenizer.encode_prompt(text, "!").tolist(), tokenizer.encode_text(text).tolist()
    assert [token for token in prompt if token < 3] == [0, 2, 1]
    assert [token for token in plain if token < 3] == [2]
    assert b"".join(tokenizer.pieces[token] for token in prompt).decode() == "<|start|><think>a<|end|><|end|>"


@pytest.mark.parametrize("tokenizer", [BYTE_PAIR, JSON])
def test_empty_text(tokenizer: Tokenizer) -> None:
    """Empty text has no tokens, with the dtype int32; only a bare prompt starts with the BOS token."""
    assert tokenizer.encode_text("").dtype == tokenizer.encode_prompt("").dtype == np.int32
    assert tokenizer.encode_text("").tolist() == tokenizer.encode_prompt("").tolist() == []
    assert tokenizer.encode_with_bos("").tolist() == [0]
    assert tokenizer.encode_with_bos("<|end|>").tolist() == [0, *tokenizer.encode_text("<|end|>").tolist()]


@pytest.mark.parametrize("tokenizer", [BYTE_PAIR, JSON])
def test_lone_surrogates(tokenizer: Tokenizer) -> None:
    """Unpaired surrogates are encoded as U+FFFD; pairs become their character."""
    assert spelled(tokenizer, "a\ud800b\udc00") == "a\ufffdb\ufffd"
    assert spelled(tokenizer, "\ud83d\ude00") == "😀"
    assert tokenizer.encode_prompt("\ud800").tolist() == tokenizer.encode_text("\ufffd").tolist()


@pytest.mark.parametrize("text", ["a", "é", "the cat ", "!", "7", "日"])
def test_a_million_characters(text: str) -> None:
    """A long text without a place to split is tokenized without loss."""
    text *= 1_000_000 // len(text)
    assert spelled(BYTE_PAIR, text) == text


@pytest.mark.parametrize("text", [" " * 1_000_000, "a" + "\n" * 1_000_000 + "b"])
def test_a_million_spaces(text: str) -> None:
    """A text that exceeds the limits of the split pattern raises InvalidRequest."""
    with pytest.raises(InvalidRequest, match="cannot be tokenized") as caught:
        BYTE_PAIR.encode_text(text)
    assert caught.value.param == "messages"


def test_a_prompt_larger_than_the_cache() -> None:
    """A prompt too large for the tokenizer's cache is tokenized without being cached."""
    text = "a" * (MAX_CACHED_BYTES // 4 + 1)
    assert BYTE_PAIR.encode_prompt(text).tolist() == BYTE_PAIR.encode_text(text).tolist()


def test_bytes_that_the_vocabulary_lacks_are_dropped() -> None:
    """Bytes that are not in the vocabulary are dropped without an error, as in llama.cpp."""
    artefact = TokenizerArtefact(pieces=[b"b", b"a", b"ab"], control=[], pattern=r"\w+|\W+", merges=[1, 0, 2])
    assert load_tokenizer(artefact).encode_text("ab!ba").tolist() == [2, 0, 1]


def test_listed_control_tokens_are_not_matched_in_text() -> None:
    """Control tokens in the vocabulary of a unigram model are not matched in text."""
    vocabulary = [("<unk>", 0.0), ("</s>", 0.0), *((char, -5.0) for char in "</s>▁ab"), ("ab", -1.0)]
    model = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=False))
    model.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    pieces = [piece.replace("▁", " ").encode() for piece, _ in vocabulary]
    artefact = TokenizerArtefact(pieces=pieces, control=[0, 1], tokenizer_json=model.to_str())
    tokenizer = load_tokenizer(artefact)
    assert spelled(tokenizer, "ab</s>") == " ab</s>"
    assert 1 not in tokenizer.encode_text("ab</s>")
    assert tokenizer.encode_prompt("ab</s>")[-1] == 1


@pytest.mark.parametrize(
    "artefact",
    [
        TokenizerArtefact(pieces=[b"a"], control=[]),
        TokenizerArtefact(pieces=[b"a"], control=[], pattern="(", merges=[0]),
        TokenizerArtefact(pieces=[b"a"], control=[], tokenizer_json="{}"),
        TokenizerArtefact(pieces=[b"a"], control=[], tokenizer_json="no json"),
    ],
)
def test_an_invalid_artefact(artefact: TokenizerArtefact) -> None:
    """An invalid tokenizer artefact raises SettingsError when it is loaded."""
    with pytest.raises(SettingsError, match="tokenizer"):
        load_tokenizer(artefact)
