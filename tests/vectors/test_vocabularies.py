"""Tokenizers against the token ids that llama.cpp expects of its vocabularies."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapter.prompt import load_tokenizer
from subnet.models.card import describe
from subnet.node_info import TokenizerArtefact
from tests.vectors.known_differences import VOCABULARIES
from tests.vectors.set_up import FOLDER

_SEPARATOR = "\n__ggml_vocab_test__\n"
PATHS = [path for path in sorted((FOLDER / "llama.cpp" / "models").glob("*.gguf")) if Path(f"{path}.out").exists()]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_token_ids(path: Path) -> None:
    """All texts have the token ids that llama.cpp expects."""
    if path.stem in VOCABULARIES:
        pytest.skip(VOCABULARIES[path.stem])
    tokenizer = load_tokenizer(TokenizerArtefact.from_bytes(describe(path)[1]))
    texts = Path(f"{path}.inp").read_bytes().decode().split(_SEPARATOR)
    expected = [[int(number) for number in line.split()] for line in Path(f"{path}.out").read_text().splitlines()]
    assert len(texts) == len(expected) + 1 or len(texts) == len(expected)
    for text, ids in zip(texts, expected, strict=False):
        assert [int(token) for token in tokenizer.encode_text(text)] == ids, repr(text)
