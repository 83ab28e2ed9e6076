"""Vocabulary of a GGUF file, and the conversion of its tokenizer to formats that a gateway can use."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from tokenizers import Tokenizer, decoders, models, normalizers

from subnet.errors import SettingsError
from subnet.models.end_tokens import end_tokens
from subnet.models.gguf import Metadata
from subnet.models.patterns import CHARACTER_LEVEL
from subnet.models.pieces import BYTE_LEVEL_ALPHABET, SPACE, byte_level_to_bytes, sentencepiece_to_bytes

ENCODERS = frozenset({"bert", "t5"})
"""Kinds of tokenizers of models for embeddings, which cannot generate text: WordPiece and Unigram."""

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


class Vocabulary(msgspec.Struct, frozen=True):
    """Tokens of a model: texts as stored in the file, token types, and the kind of tokenizer.

    `kind` is "gpt2" for BPE, and "llama" for SentencePiece. `pre` is the pre-tokenizer of BPE.
    """

    kind: str
    texts: list[str]
    types: list[int]
    pre: str = "default"

    @classmethod
    def from_metadata(cls, metadata: Metadata) -> Vocabulary:
        """Return the vocabulary in the metadata. Raises SettingsError if it is missing, unsupported or malformed."""
        kind, tokens = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.tokens")
        if not isinstance(kind, str) or not tokens or not isinstance(tokens, list):
            raise SettingsError(f"unsupported tokenizer type: {kind or 'none'}")
        types = metadata.get("tokenizer.ggml.token_type")
        kinds = [NORMAL] * len(tokens) if types is None else [int(value) for value in types]
        if len(kinds) != len(tokens):
            raise SettingsError(f"the model's vocabulary has {len(tokens)} tokens but {len(kinds)} token types")
        pre = "gemma4" if kind == "gemma4" else str(metadata.get("tokenizer.ggml.pre", "default"))
        texts = [token.decode("utf-8", "replace") for token in tokens]
        return cls("gpt2" if kind == "gemma4" else kind, texts, kinds, pre)

    @property
    def is_byte_level(self) -> bool:
        """True if texts spell bytes, as of GPT-2; False if they are texts of SentencePiece."""
        return self.kind == "gpt2" and self.pre not in CHARACTER_LEVEL

    def of_type(self, token_type: int) -> list[int]:
        return [token for token, kind in enumerate(self.types) if kind == token_type]

    def control_tokens(self) -> list[int]:
        """Return control tokens and tokens that end a turn, in ascending order."""
        return sorted({*self.of_type(CONTROL), *self.end_tokens()})

    def end_tokens(self) -> list[int]:
        """Return tokens whose text marks the end of a turn."""
        return end_tokens({text: t for t, text in enumerate(self.texts) if self.types[t] != USER_DEFINED})

    def pieces(self) -> list[bytes]:
        """Return the bytes of each token; for control tokens, those of its text."""
        plain = {NORMAL, UNUSED, BYTE}
        decode = byte_level_to_bytes if self.is_byte_level else sentencepiece_to_bytes
        return [
            decode(text) if kind in plain else text.encode() for text, kind in zip(self.texts, self.types, strict=True)
        ]


def byte_pair_merges(vocabulary: Vocabulary, merges: Sequence[bytes]) -> list[int]:
    """Return token ids in merge order: single bytes or characters, then the result of each merge.

    Raises SettingsError if the vocabulary lacks the result of a merge.
    """
    ids = {text: t for t, text in enumerate(vocabulary.texts) if vocabulary.types[t] == NORMAL}
    single = BYTE_LEVEL_ALPHABET if vocabulary.is_byte_level else ids
    order = {token: None for text, token in ids.items() if len(text) == 1 and text in single}
    for merge in merges:
        text = merge.decode("utf-8", "replace").replace(" ", "")
        token = ids.get(text)
        if token is None:
            raise SettingsError(f"the model's vocabulary has no token {text!r}, which one of its merges produces")
        order[token] = None
    return list(order)


def scored_merges(vocabulary: Vocabulary, scores: Sequence[float]) -> list[int]:
    """Return token ids in the order in which SentencePiece's BPE merges them: the highest score first.

    Raises SettingsError if there is not one score per token.
    """
    _check_scores(vocabulary, scores)
    order = sorted(vocabulary.of_type(NORMAL), key=lambda token: -float(scores[token]))
    # Texts have "▁" instead of spaces.
    return [token for token in order if vocabulary.texts[token] and " " not in vocabulary.texts[token]]


def sentencepiece_json(vocabulary: Vocabulary, scores: Sequence[float], space_prefix: bool) -> str:
    """Return a tokenizer.json equivalent to SentencePiece's BPE, in which the pair with the highest score merges first.

    Raises SettingsError if there is not one score per token.
    """
    _check_scores(vocabulary, scores)
    ids = {text: token for token, text in enumerate(vocabulary.texts)}
    merges = sorted(
        (-float(scores[token]), ids[text[:cut]], ids[text[cut:]])
        for text, token in ids.items()
        if vocabulary.types[token] == NORMAL
        for cut in range(1, len(text))
        if text[:cut] in ids and text[cut:] in ids
    )
    pairs = [(vocabulary.texts[left], vocabulary.texts[right]) for _, left, right in merges]
    unknown = next((vocabulary.texts[token] for token in vocabulary.of_type(UNKNOWN)), None)
    tokenizer = Tokenizer(models.BPE(ids, pairs, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    spaces = [normalizers.Prepend(SPACE)] if space_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*spaces, normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    text: str = tokenizer.to_str()
    return text


def _check_scores(vocabulary: Vocabulary, scores: Sequence[float]) -> None:
    if len(scores) != len(vocabulary.texts):
        raise SettingsError(f"the model's vocabulary has {len(vocabulary.texts)} tokens but {len(scores)} scores")
