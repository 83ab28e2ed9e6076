"""Families of models whose arguments are written one by one between tags."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from adapter.tools.formats.elements import Elements
from adapter.tools.formats.tags import TagFormat, TagSyntax, tag_format


def _pair(name: str) -> tuple[str, str]:
    return f"<{name}>", f"</{name}>"


def _qwen(call: str, value: tuple[str, str]) -> TagSyntax:
    return TagSyntax(
        call=(f"<{call}>\n", f"\n</{call}>"),
        function=("<function=", ">\n", "</function>"),
        key=("<parameter=", ">"),
        value=value,
        separator="\n",
        tokens=_pair(call),
    )


def _mimo() -> TagSyntax:
    call = _pair("tool_call")
    return TagSyntax(
        call=call,
        function=("<function=", ">", "</function>"),
        key=("<parameter=", ">"),
        value=("", "</parameter>"),
        tokens=call,
    )


def _glm(line: str) -> TagSyntax:
    call, key, value = _pair("tool_call"), _pair("arg_key"), _pair("arg_value")
    return TagSyntax(
        call=call,
        function=("", line, ""),
        key=(key[0], key[1] + line),
        value=(value[0], value[1] + line),
        separator=line,
        tokens=(*call, *key, *value),
    )


def _hunyuan(suffix: str) -> TagSyntax:
    section, call = _pair(f"tool_calls{suffix}"), _pair(f"tool_call{suffix}")
    key, value, after_name = _pair(f"arg_key{suffix}"), _pair(f"arg_value{suffix}"), f"<tool_sep{suffix}>"
    return TagSyntax(
        section=(f"{section[0]}\n", f"\n{section[1]}"),
        call=call,
        function=("", f"{after_name}\n", ""),
        key=(key[0], key[1] + "\n"),
        value=(value[0], value[1] + "\n"),
        separator="\n",
        tokens=(*section, *call, after_name, *key, *value),
    )


def _invoke(section: tuple[str, str], prefix: str = "", tokens: tuple[str, ...] | None = None) -> TagSyntax:
    return TagSyntax(
        section=(f"{section[0]}\n", f"\n{section[1]}"),
        function=(f'<{prefix}invoke name="', '">\n', f"</{prefix}invoke>"),
        key=(f'<{prefix}parameter name="', '">'),
        value=("", f"</{prefix}parameter>\n"),
        separator="\n",
        tokens=section if tokens is None else tokens,
    )


def _deepseek(section: str, space: str = "") -> TagSyntax:
    bar = "\uff5c"
    prefix, token = f"{bar}DSML{bar}{space}", f"{bar}DSML{bar}"
    types = ((f'" string="{word}">', kind) for word, kind in (("true", "string"), ("false", "json")))
    return msgspec.structs.replace(_invoke(_pair(f"{prefix}{section}"), prefix, (token,)), types=tuple(types))


_STEP3_CALLS = ("<\uff5ctool_calls_begin\uff5c>", "<\uff5ctool_calls_end\uff5c>")
_STEP3_CALL = ("<\uff5ctool_call_begin\uff5c>", "<\uff5ctool_call_end\uff5c>")
_STEP3_SEP = "<\uff5ctool_sep\uff5c>"
_STEP3 = TagSyntax(
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
    function=('<function name="', '">', "</function>"),
    key=('<param name="', '">'),
    value=("", "</param>"),
    verbatim=("<![CDATA[", "]]>"),
    separator="\n",
)

_NAMESPACE = "]<]minimax[>["
_MINIMAX_M3 = TagSyntax(
    section=(f"{_NAMESPACE}<tool_call>\n", f"{_NAMESPACE}</tool_call>"),
    function=(f'{_NAMESPACE}<invoke name="', '">', f"{_NAMESPACE}</invoke>\n"),
    key=(f"{_NAMESPACE}<", ">"),
    value=("", f"{_NAMESPACE}</"),
    tokens=(_NAMESPACE,),
)

_SYNTAXES = {
    "glm": _glm("\n"),
    "glm47": _glm(""),
    "hy_v3": _hunyuan(""),
    "hy3": _hunyuan(":opensource"),
    "qwen3_coder": _qwen("tool_call", ("\n", "\n</parameter>\n")),
    "mimo": _mimo(),
    "seed_oss": _qwen("seed:tool_call", ("", "</parameter>\n")),
    "minimax_m2": _invoke(_pair("minimax:tool_call")),
    "dots": _invoke(_pair("dots_function_call")),
    "deepseek_v32": _deepseek("function_calls"),
    "deepseek_v4": _deepseek("tool_calls"),
    "deepseek_v41": _deepseek("calls", " "),
    "step3": _STEP3,
    "minicpm5": _MINICPM,
}
TAG_FORMATS: Mapping[str, type[TagFormat]] = {
    **{name: tag_format(name, syntax) for name, syntax in _SYNTAXES.items()},
    "minimax_m3": tag_format("minimax_m3", _MINIMAX_M3, Elements),
}

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
