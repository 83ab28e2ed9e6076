"""Families of models whose arguments are written one by one between tags."""

from __future__ import annotations

import msgspec

from adapter.tools.formats.elements import Elements
from adapter.tools.formats.tags import TagFormat, TagSyntax


def _pair(name: str) -> tuple[str, str]:
    return f"<{name}>", f"</{name}>"


def _qwen(family: str, call: str, value: tuple[str, str]) -> TagSyntax:
    return TagSyntax(
        name=family,
        call=(f"<{call}>\n", f"\n</{call}>"),
        function=("<function=", ">\n", "</function>"),
        key=("<parameter=", ">"),
        value=value,
        separator="\n",
        tokens=_pair(call),
    )


def _mimo(family: str) -> TagSyntax:
    call = _pair("tool_call")
    return TagSyntax(
        name=family,
        call=call,
        function=("<function=", ">", "</function>"),
        key=("<parameter=", ">"),
        value=("", "</parameter>"),
        tokens=call,
    )


def _glm(family: str, line: str) -> TagSyntax:
    call, key, value = _pair("tool_call"), _pair("arg_key"), _pair("arg_value")
    return TagSyntax(
        name=family,
        call=call,
        function=("", line, ""),
        key=(key[0], key[1] + line),
        value=(value[0], value[1] + line),
        separator=line,
        tokens=(*call, *key, *value),
    )


def _hunyuan(family: str, suffix: str) -> TagSyntax:
    section, call = _pair(f"tool_calls{suffix}"), _pair(f"tool_call{suffix}")
    key, value, after_name = _pair(f"arg_key{suffix}"), _pair(f"arg_value{suffix}"), f"<tool_sep{suffix}>"
    return TagSyntax(
        name=family,
        section=(f"{section[0]}\n", f"\n{section[1]}"),
        call=call,
        function=("", f"{after_name}\n", ""),
        key=(key[0], key[1] + "\n"),
        value=(value[0], value[1] + "\n"),
        separator="\n",
        tokens=(*section, *call, after_name, *key, *value),
    )


def _invoke(
    family: str, section: tuple[str, str], prefix: str = "", tokens: tuple[str, ...] | None = None
) -> TagSyntax:
    return TagSyntax(
        name=family,
        section=(f"{section[0]}\n", f"\n{section[1]}"),
        function=(f'<{prefix}invoke name="', '">\n', f"</{prefix}invoke>"),
        key=(f'<{prefix}parameter name="', '">'),
        value=("", f"</{prefix}parameter>\n"),
        separator="\n",
        tokens=section if tokens is None else tokens,
    )


def _deepseek(family: str, section: str, space: str = "") -> TagSyntax:
    bar = "\uff5c"
    prefix, token = f"{bar}DSML{bar}{space}", f"{bar}DSML{bar}"
    types = ((f'" string="{word}">', kind) for word, kind in (("true", "string"), ("false", "json")))
    return msgspec.structs.replace(_invoke(family, _pair(f"{prefix}{section}"), prefix, (token,)), types=tuple(types))


_STEP3_CALLS = ("<\uff5ctool_calls_begin\uff5c>", "<\uff5ctool_calls_end\uff5c>")
_STEP3_CALL = ("<\uff5ctool_call_begin\uff5c>", "<\uff5ctool_call_end\uff5c>")
_STEP3_SEP = "<\uff5ctool_sep\uff5c>"
_STEP3 = TagSyntax(
    name="step3",
    section=(f"{_STEP3_CALLS[0]}\n", f"\n{_STEP3_CALLS[1]}"),
    call=(f"{_STEP3_CALL[0]}function{_STEP3_SEP}", _STEP3_CALL[1]),
    function=('<steptml:invoke name="', '">\n', "</steptml:invoke>"),
    key=('<steptml:parameter name="', '">'),
    value=("", "</steptml:parameter>\n"),
    separator="\n",
    ignored=(_STEP3_CALL[0], f"function{_STEP3_SEP}", _STEP3_SEP),
    tokens=(*_STEP3_CALLS, *_STEP3_CALL, _STEP3_SEP),
)

_MINICPM = TagSyntax(
    name="minicpm5",
    function=('<function name="', '">', "</function>"),
    key=('<param name="', '">'),
    value=("", "</param>"),
    verbatim=("<![CDATA[", "]]>"),
    separator="\n",
)

_NAMESPACE = "]<]minimax[>["
_MINIMAX_M3 = TagSyntax(
    name="minimax_m3",
    section=(f"{_NAMESPACE}<tool_call>\n", f"{_NAMESPACE}</tool_call>"),
    function=(f'{_NAMESPACE}<invoke name="', '">', f"{_NAMESPACE}</invoke>\n"),
    key=(f"{_NAMESPACE}<", ">"),
    value=("", f"{_NAMESPACE}</"),
    tokens=(_NAMESPACE,),
)

_SYNTAXES = (
    _glm("glm", "\n"),
    _glm("glm47", ""),
    _hunyuan("hy_v3", ""),
    _hunyuan("hy3", ":opensource"),
    _qwen("qwen3_coder", "tool_call", ("\n", "\n</parameter>\n")),
    _mimo("mimo"),
    _qwen("seed_oss", "seed:tool_call", ("", "</parameter>\n")),
    _invoke("minimax_m2", _pair("minimax:tool_call")),
    _invoke("dots", _pair("dots_function_call")),
    _deepseek("deepseek_v32", "function_calls"),
    _deepseek("deepseek_v4", "tool_calls"),
    _deepseek("deepseek_v41", "calls", " "),
    _STEP3,
    _MINICPM,
)
TAG_FORMATS: tuple[TagFormat, ...] = (*map(TagFormat, _SYNTAXES), Elements(_MINIMAX_M3))

# Marks in the chat template of each family; more specific ones come first.
TAG_MARKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("deepseek_v41", ("\uff5cDSML\uff5c calls",)),
    ("deepseek_v4", ("\uff5cDSML\uff5c", "tool_calls>")),
    ("deepseek_v32", ("\uff5cDSML\uff5c",)),
    ("minimax_m3", (_NAMESPACE,)),
    ("minimax_m2", ("<minimax:tool_call>",)),
    ("seed_oss", ("<seed:tool_call>",)),
    ("dots", ("<dots_function_call>",)),
    ("step3", ("<steptml:",)),
    ("minicpm5", ('<function name="', "CDATA")),
    ("hy3", ("arg_key", "opensource")),
    ("hy_v3", ("<tool_sep>", "<arg_key>")),
    ("glm47", ("</arg_key><arg_value>",)),
    ("glm", ("<arg_key>",)),
    ("mimo", ("<function=", "<parameter=", "MiMo")),
    ("qwen3_coder", ("<function=", "<parameter=")),
)
