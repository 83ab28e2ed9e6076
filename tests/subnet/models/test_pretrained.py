"""Cards and tokenizers made from folders in Hugging Face format."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from adapter.decode import Detokenizer, TokenTable
from adapter.prompt import Tokenizer, load_tokenizer
from subnet.errors import SettingsError
from subnet.models.card import describe
from subnet.models.gguf import read_metadata
from subnet.models.pretrained import describe_pretrained
from subnet.models.resolve import resolve
from subnet.node_info import ModelCard, TokenizerArtefact, digest
from tests.pretrained import CORPUS, END, START, THINK, byte_fallback, byte_level, folder_of, id_of, unigram


def described(folder: Path) -> tuple[ModelCard, TokenizerArtefact]:
    card, artefact = describe_pretrained(folder)
    assert card.tokenizer == digest(artefact)
    return card, TokenizerArtefact.from_bytes(artefact)


class TokenizerPair(NamedTuple):
    """Tokenizer of the `tokenizers` package, our tokenizer from the same file, and its token table."""

    theirs: tokenizers.Tokenizer
    ours: Tokenizer
    table: TokenTable


def pair_of(folder: Path, theirs: tokenizers.Tokenizer) -> TokenizerPair:
    artefact = described(folder_of(folder, theirs))[1]
    return TokenizerPair(theirs, load_tokenizer(artefact), TokenTable(artefact.pieces, artefact.control))


@pytest.fixture(scope="module", params=[byte_level, byte_fallback, unigram], ids=lambda make: str(make.__name__))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TokenizerPair:
    return pair_of(tmp_path_factory.mktemp("model"), request.param())


@pytest.fixture(scope="module")
def byte_pair(tmp_path_factory: pytest.TempPathFactory) -> TokenizerPair:
    return pair_of(tmp_path_factory.mktemp("model"), byte_level())


TEXT = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
        st.sampled_from(["the", " cat", "didn't", "  ", "\n", "語", "über", THINK, "▁", "<0x0A>", "👩‍👧"]),
    ),
    max_size=10,
).map("".join)


@given(text=TEXT)
def test_encoding_and_decoding_match_the_package(pair: TokenizerPair, text: str) -> None:
    """Any text is encoded and decoded as the package does, except that the package drops the space it prepends."""
    ids = pair.theirs.encode(text, add_special_tokens=False).ids
    assert pair.ours.encode_text(text).tolist() == ids
    message = Detokenizer(pair.table).decode(ids)
    assert message.removeprefix(" " if pair.theirs.normalizer else "") == pair.theirs.decode(ids)


@given(data=st.data())
def test_invalid_utf8_is_replaced_as_in_the_package(byte_pair: TokenizerPair, data: st.DataObject) -> None:
    """Tokens that form no whole characters are decoded with the same replacement characters as in the package."""
    ids = data.draw(st.lists(st.integers(0, byte_pair.theirs.get_vocab_size() - 1), max_size=12))
    # An incomplete character at the end is not shown; a letter after it ends it.
    ids.append(id_of(byte_pair.theirs, "a"))
    assert Detokenizer(byte_pair.table).decode(ids) == byte_pair.theirs.decode(ids)


@pytest.mark.parametrize("text", [f"{START}user\nHi there{END}{START}", END, f"{START}{THINK}so{END} <|end |>"])
def test_only_prompts_contain_control_tokens(byte_pair: TokenizerPair, text: str) -> None:
    """The text of a control token becomes that token in a prompt, and ordinary tokens in a user's text."""
    theirs, ours, _ = byte_pair
    assert ours.encode_prompt(text).tolist() == theirs.encode(text).ids
    assert not ours.control.intersection(ours.encode_text(text).tolist())


def test_token_types(tmp_path: Path) -> None:
    """Special tokens, those named in the configuration and those that end a turn are control tokens; other added tokens
    are matched as text."""
    tokenizer = byte_level()
    tokenizer.add_tokens(["<pad>", "<turn>", "<tool>", "<mask>"])
    think, pad, turn, tool, mask = (id_of(tokenizer, text) for text in (THINK, "<pad>", "<turn>", "<tool>", "<mask>"))
    added = {str(tool): {"content": "<tool>", "special": False}, str(mask): {"content": "<mask>", "special": True}}
    config: dict[str, Any] = {"eos_token": {"content": END}, "additional_special_tokens": ["<pad>", "<not there>"]}
    config["added_tokens_decoder"] = added
    folder = folder_of(tmp_path, tokenizer, tokenizer_config=config, generation_config={"eos_token_id": [1, turn]})
    card, artefact = described(folder)
    assert (artefact.control, artefact.user_defined) == ([0, 1, pad, turn, mask], [think, tool])
    assert [artefact.pieces[token] for token in (0, pad, tool)] == [START.encode(), b"<pad>", b"<tool>"]
    assert card.stop_tokens == (1, turn)
    assert {think, tool} <= set(load_tokenizer(artefact).encode_text(f"a<tool>{THINK}{START}").tolist())


@pytest.mark.parametrize("text", ["the▁▁cat", "the  cat", "a mat, mats", "mat"])
def test_base_vocabulary_is_matched_by_the_tokenizer(tmp_path: Path, text: str) -> None:
    """Added tokens of the base vocabulary that are not matched as their own text are left to the tokenizer."""
    tokenizer = byte_fallback()
    tokenizer.add_tokens([AddedToken("▁▁", normalized=False), AddedToken("mat", single_word=True)])
    artefact = described(folder_of(tmp_path, tokenizer))[1]
    spaces, mat = id_of(tokenizer, "▁▁"), id_of(tokenizer, "mat")
    assert max(spaces, mat) < tokenizer.get_vocab_size(with_added_tokens=False)
    assert (artefact.user_defined, artefact.pieces[spaces]) == ([], b"  ")
    assert load_tokenizer(artefact).encode_text(text).tolist() == tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize(
    ("generation", "config", "eos", "stops"),
    [
        ({"eos_token_id": 5}, {"eos_token_id": 7}, START, (0, 1, 5)),
        ({}, {"eos_token_id": [7, 8]}, "", (1, 7, 8)),
        ({"eos_token_id": None}, {"text_config": {"eos_token_id": 9}}, None, (1, 9)),
        ({}, {}, START, (0, 1)),
        ({}, {}, "<not there>", (1,)),
    ],
)
def test_stop_tokens(tmp_path: Path, generation: Any, config: Any, eos: Any, stops: tuple[int, ...]) -> None:
    """Stop tokens come from generation_config.json, or else config.json, plus the tokenizer's own end token, and
    control tokens whose text marks the end of a turn: here END.
    """
    folder = folder_of(tmp_path, tokenizer_config={"eos_token": eos}, generation_config=generation, config=config)
    assert described(folder)[0].stop_tokens == stops


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 4096, "rope_scaling": {"factor": 4.0}}, 4096),
        ({"text_config": {"max_position_embeddings": 2048}}, 2048),
        ({"n_positions": 1024}, 1024),
        ({}, 8192),
    ],
)
def test_context_length(tmp_path: Path, config: Any, length: int) -> None:
    """The context length is the trained one, wherever config.json has it, unless another one is given."""
    folder = folder_of(tmp_path, config=config)
    assert described(folder)[0].context_length == length
    assert describe_pretrained(folder, context_length=99)[0].context_length == 99


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("plain", "plain"),
        ([{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "usual"}], "usual"),
        ([{"name": "rag", "template": "rag"}], None),
        (None, None),
    ],
)
def test_chat_template(tmp_path: Path, template: Any, wanted: str | None) -> None:
    """The chat template is the only one or the default of several, unless chat_template.jinja exists."""
    folder = folder_of(tmp_path, tokenizer_config={"chat_template": template})
    assert described(folder)[0].chat_template == wanted
    (folder / "chat_template.jinja").write_text("{{ file }}")
    assert described(folder)[0].chat_template == "{{ file }}"


def test_template_for_tools(tmp_path: Path) -> None:
    """A template named "tool_use" is for tools; a file of its own takes precedence over the settings."""
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "usual"}]
    folder = folder_of(tmp_path, tokenizer_config={"chat_template": named})
    assert described(folder)[0].tool_template == "tools"
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ file }}")
    assert described(folder)[0].tool_template == "{{ file }}"
    plain = folder_of(tmp_path / "plain", tokenizer_config={"chat_template": "plain"})
    assert described(plain)[0].tool_template is None


@pytest.mark.parametrize(("add_bos_token", "expected"), [(None, True), (False, False), (True, True)])
def test_beginning_of_sequence_token(tmp_path: Path, add_bos_token: bool | None, expected: bool) -> None:
    """A bare prompt starts with the BOS token if tokenizer.json adds it, unless the configuration says otherwise."""
    config = {"bos_token": "<s>"} | ({} if add_bos_token is None else {"add_bos_token": add_bos_token})
    card, artefact = described(folder_of(tmp_path, byte_fallback(), tokenizer_config=config))
    assert (card.bos_token, artefact.bos_id, artefact.add_bos) == ("<s>", 1, expected)
    bare = load_tokenizer(artefact).encode_with_bos("the cat").tolist()
    assert bare == byte_fallback().encode("the cat", add_special_tokens=expected).ids


def test_model_ids(tmp_path: Path) -> None:
    """A model id is the folder's name unless one is given; special_tokens_map.json supplements the configuration."""
    folder = folder_of(tmp_path / "Tiny-1B", special_tokens_map={"bos_token": START})
    card = described(folder)[0]
    assert (card.id, card.bos_token) == ("Tiny-1B", START)
    assert describe_pretrained(str(folder), "mine")[0].id == "mine"


def no_decoder() -> tokenizers.Tokenizer:
    tokenizer = byte_level()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def test_invalid_folders_raise_one_line_errors(tmp_path: Path) -> None:
    """A missing folder, one without a tokenizer, an invalid tokenizer and an unsupported decoder raise errors of one
    line."""
    cases: list[tuple[str | Path, str]] = [
        ("nonsense", "model folder not found"),
        ("a/b/c", "model folder not found"),
        (tmp_path, "has no tokenizer.json"),
        (folder_of(tmp_path / "words", no_decoder()), "unsupported decoder: WordPiece"),
        (folder_of(tmp_path / "list", config=[1]), "is not a JSON object"),
    ]
    for reference, message in cases:
        with pytest.raises(SettingsError, match=message) as caught:
            describe_pretrained(reference)
        assert "\n" not in caught.value.message
    (tmp_path / "tokenizer.json").write_text('{"model": 1}')
    with pytest.raises(SettingsError, match="cannot be used"):
        describe_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(SettingsError, match="is not a JSON object"):
        describe_pretrained(tmp_path)


def test_the_demo_model_in_hugging_face_format_is_the_same(tmp_path: Path) -> None:
    """The demo model's vocabulary as a tokenizer.json gives the same pieces, token types, stop tokens and encodings as
    its GGUF file."""
    path = resolve(None, print)
    metadata, (card, data) = read_metadata(path), describe(path)
    known = TokenizerArtefact.from_bytes(data)
    texts = [token.decode() for token in metadata["tokenizer.ggml.tokens"]]
    merges = [tuple(merge.decode().split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = tokenizers.Tokenizer(models.BPE({text: token for token, text in enumerate(texts)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([texts[token] for token in known.control])
    config = {"bos_token": card.bos_token, "eos_token": card.eos_token, "chat_template": card.chat_template}
    ends = {"eos_token_id": list(card.stop_tokens)}
    ours, artefact = described(folder_of(tmp_path, tokenizer, tokenizer_config=config, generation_config=ends))
    assert (artefact.pieces, artefact.control, artefact.bos_id) == (known.pieces, known.control, known.bos_id)
    assert (ours.chat_template, ours.stop_tokens) == (card.chat_template, card.stop_tokens)
    one, other = load_tokenizer(known), load_tokenizer(artefact)
    for text in [*CORPUS, "<|im_start|>user\nHi<|im_end|>\n", "x²³ \r\n\t 42 🏳️‍🌈"]:
        assert one.encode_prompt(text).tolist() == other.encode_prompt(text).tolist()
