"""From the vocabulary in a GGUF file to what a gateway needs to tokenize as the model does."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from tokenizers import Tokenizer, decoders, models, normalizers

from subnet.errors import SettingsError
from subnet.models.gguf import Metadata
from subnet.models.patterns import PATTERNS
from subnet.models.pieces import ALPHABET, SPACE, bytes_of_alphabet, bytes_of_sentencepiece

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

# What llama.cpp takes for the end of generation, whatever the file says of it (src/llama-vocab.cpp, special_eog_ids).
_END_TEXTS = frozenset(
    [
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|endoftext|>", "<|eom_id|>"),
        *("<|end_of_text|>", "<end_of_turn>", "</s>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<end_of_utterance>"),
        "<｜end▁of▁sentence｜>",  # noqa: RUF001
    ]
)
# In gpt-oss's format a turn is of several messages, and what ends one elsewhere ends a message here.
_HARMONY = {"<|return|>", "<|call|>"}
_END_OF_MESSAGE = {"<|end|>"}


class Vocabulary(msgspec.Struct, frozen=True):
    """The tokens of a model: their texts as the file has them, their kinds, and the kind of tokenizer they belong to
    ("gpt2" is byte-level BPE, "llama" SentencePiece)."""

    kind: str
    texts: list[str]
    types: list[int]

    @classmethod
    def from_metadata(cls, metadata: Metadata) -> Vocabulary:
        """Raises SettingsError for a file without a vocabulary, or one of another kind."""
        kind, tokens = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.tokens")
        if kind not in ("gpt2", "llama") or not tokens or not isinstance(tokens, list):
            raise SettingsError(f"unsupported tokenizer type: {kind or 'none'}")
        types = metadata.get("tokenizer.ggml.token_type")
        kinds = [NORMAL] * len(tokens) if types is None else [int(each) for each in types]
        if len(kinds) != len(tokens):
            raise SettingsError(f"the model's vocabulary has {len(tokens)} tokens but {len(kinds)} token types")
        return cls(kind, [token.decode("utf-8", "replace") for token in tokens], kinds)

    def of_type(self, wanted: int) -> list[int]:
        return [token for token, kind in enumerate(self.types) if kind == wanted]

    def control(self) -> list[int]:
        """Control tokens and those that end a turn."""
        return sorted({*self.of_type(CONTROL), *self.ends()})

    def ends(self) -> list[int]:
        """Tokens whose text says that they end a turn."""
        among = _END_TEXTS - _END_OF_MESSAGE if set(self.texts) >= _HARMONY else _END_TEXTS
        return [t for t, text in enumerate(self.texts) if text in among and self.types[t] != USER_DEFINED]

    def pieces(self) -> list[bytes]:
        plain = {NORMAL, UNUSED, BYTE}
        decode = bytes_of_alphabet if self.kind == "gpt2" else bytes_of_sentencepiece
        return [
            decode(text) if kind in plain else text.encode() for text, kind in zip(self.texts, self.types, strict=True)
        ]


def byte_pair_pattern(metadata: Metadata) -> str:
    """How a byte-level BPE tokenizer splits text. Raises SettingsError for one that is not known."""
    name = metadata.get("tokenizer.ggml.pre", "none")
    if name not in PATTERNS:
        raise SettingsError(f"unknown pre-tokenizer {name!r}: pass a tokenizer.json with --tokenizer")
    return PATTERNS[name]


def byte_pair_merges(vocabulary: Vocabulary, merges: Sequence[bytes]) -> list[int]:
    """Token ids in merge order: single bytes, then what each merge makes. Raises SettingsError."""
    ids = {text: t for t, text in enumerate(vocabulary.texts) if vocabulary.types[t] == NORMAL}
    order = {token: None for text, token in ids.items() if len(text) == 1 and text in ALPHABET}
    for merge in merges:
        text = merge.decode("utf-8", "replace").replace(" ", "")
        token = ids.get(text)
        if token is None:
            raise SettingsError(f"the model's vocabulary has no token {text!r}, which one of its merges produces")
        order[token] = None
    return list(order)


def sentencepiece_json(vocabulary: Vocabulary, scores: Sequence[float], space_prefix: bool) -> str:
    """A tokenizer.json that does what SentencePiece's BPE does: the pair whose result scores highest merges first."""
    if len(scores) != len(vocabulary.texts):
        raise SettingsError(f"the model's vocabulary has {len(vocabulary.texts)} tokens but {len(scores)} scores")
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
