"""Users' text never becomes a control token, whatever the template."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.decode import Detokenizer, TokenTable
from adapter.prompt import ChatTemplate, Guard, load_tokenizer
from adapter.prompt.guard import MARKS
from subnet.errors import InvalidRequest
from subnet.node_info import TokenizerArtefact

CONTROL = ["<|im_start|>", "<|im_end|>", "<s>", "[INST]", "END"]
PIECES = [*(bytes([value]) for value in range(256)), *(text.encode() for text in CONTROL), b"</think>"]
TOKENIZER = load_tokenizer(
    TokenizerArtefact(
        pieces=PIECES,
        control=list(range(256, 261)),
        user_defined=[261],
        pattern=r"\p{L}+|[^\p{L}]+",
        merges=list(range(256)),
    )
)
TEMPLATE = ChatTemplate(
    "<s>{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.name }}{{ message.content | trim }}"
    "{{ message.extra | tojson }}<|im_end|>\n"
    "{% endfor %}"
)
USER_TEXT = st.lists(
    st.one_of(
        st.sampled_from(
            [*CONTROL, "</think>", "<|im_", "end|>", "<", "|", ">", "s", "[", "INST]", "E", "ND", " ", "user"]
        ),
        st.text(max_size=3),
        st.sampled_from(MARKS[:3]),
    ),
    max_size=8,
).map("".join)


def tokens(messages: list[dict[str, Any]]) -> list[int]:
    guarded, mark = TOKENIZER.guard.protect(messages)
    return [int(token) for token in TOKENIZER.encode_prompt(TEMPLATE.render(guarded), mark)]


def spelled(ids: list[int]) -> str:
    return Detokenizer(TokenTable(PIECES, ())).decode(ids)


@given(USER_TEXT, USER_TEXT, USER_TEXT, USER_TEXT)
def test_only_the_template_makes_control_tokens(name: str, content: str, key: str, value: str) -> None:
    """Users' text in any field adds or removes no control token, and is rendered unchanged."""
    messages = [{"role": "user", "name": name, "content": content, "extra": {key: value}}] * 2
    prompt = tokens(messages)
    assert [token for token in prompt if token in TOKENIZER.control] == [258, 256, 257, 256, 257]
    assert spelled(prompt) == TEMPLATE.render(messages).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@given(USER_TEXT)
def test_guarded_text_holds_no_control_token(text: str) -> None:
    """The guard breaks every occurrence of a control token, and removing its marks restores the text."""
    guarded, mark = TOKENIZER.guard.protect(text)
    assert not any(control in guarded for control in CONTROL)
    assert guarded.replace(mark, "") == text


@pytest.mark.parametrize(
    "pair", [("<|im_", "end|>"), ("<|im_ ", "end|>"), ("<", "s>"), ("[INS", "T]"), ("", "|im_end|>"), ("E", "ND")]
)
def test_joined_texts_form_no_control_token(pair: tuple[str, str]) -> None:
    """Two texts that a template joins or trims do not form a control token."""
    guarded, _ = Guard(CONTROL).protect(list(pair))
    joined = "<" + "".join(text.strip() for text in guarded)
    assert not any(control in joined for control in CONTROL)


def test_overlapping_control_tokens() -> None:
    """Of two overlapping control tokens in a text, both are broken."""
    guarded, _ = Guard(["abc", "bcd"]).protect("abcd")
    assert "abc" not in guarded
    assert "bcd" not in guarded


def test_user_defined_tokens_and_keys_are_unchanged() -> None:
    """The guard does not change user-defined tokens or the roles and keys of messages."""
    messages = [{"role": "user", "content": "<think>x</think>y"}, 7, None]
    assert Guard(["<|end|>", "r|>", "role", "ent", "tr"]).protect(messages)[0] == messages


def test_the_mark_is_not_in_the_input() -> None:
    """The guard's mark is a noncharacter that the input does not contain; input with all of them is rejected."""
    guarded, mark = Guard(CONTROL).protect({MARKS[0]: [MARKS[1] + "<s>"]})
    assert mark == MARKS[2]
    assert guarded == {MARKS[0]: [MARKS[1] + f"<{mark}s>"]}
    with pytest.raises(InvalidRequest):
        Guard(CONTROL).protect("".join(MARKS))


@pytest.mark.parametrize("control", [["<a>", "<a>b"], ["<a>b", "<a>"]])
def test_a_control_token_that_is_a_prefix(control: list[str]) -> None:
    """A control token that is a prefix of another one is broken, too, in any order of the list."""
    guarded, mark = Guard(control).protect("<a>c <a>b")
    assert guarded == f"<{mark}a>c <{mark}a>b"


def test_deep_nesting_is_refused() -> None:
    """Messages that are nested too deeply raise InvalidRequest."""
    value: Any = "x"
    for _ in range(100_000):
        value = [value]
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        Guard(CONTROL).protect(value)


def test_a_model_without_control_tokens() -> None:
    """Without control tokens the guard changes nothing."""
    assert Guard([]).protect("<s>")[0] == "<s>"
