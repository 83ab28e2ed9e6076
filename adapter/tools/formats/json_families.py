"""Styles of calls in JSON, by the families of models that write them."""

from __future__ import annotations

from adapter.tools.formats.json_style import JsonStyle


def _deepseek(name: str) -> str:
    """Return a mark of DeepSeek, with fullwidth bars at both ends and block characters instead of spaces."""
    return "<\uff5c" + name.replace(" ", "\u2581") + "\uff5c>"


_DEEPSEEK_SECTION = (_deepseek("tool calls begin"), _deepseek("tool calls end"))
_DEEPSEEK_CALL = (_deepseek("tool call begin"), _deepseek("tool call end"))
_SEPARATOR = _deepseek("tool sep")
_LIST = ("[", "]")

# Each call between marks.
HERMES = JsonStyle(name="hermes", call=("<tool_call>\n", "\n</tool_call>"), between="\n")
LONGCAT = JsonStyle(name="longcat", call=("<longcat_tool_call>\n", "\n</longcat_tool_call>"), between="\n")
INTERNLM2 = JsonStyle(name="internlm2", call=("<|action_start|><|plugin|>\n", "<|action_end|>"))
GRANITE_20B = JsonStyle(name="granite_20b", call=("<function_call> ", ""))
GIGACHAT = JsonStyle(
    name="gigachat",
    call=("<|message_sep|>\n\nfunction call<|role_sep|>\n", ""),
    other_sections=(("<|function_call|>", ""),),
)
GIGACHAT3_1 = JsonStyle(name="gigachat3_1", call=("<|function_call|>", ""))

# All calls between marks.
NEMOTRON = JsonStyle(name="nemotron", section=("<TOOLCALL>", "</TOOLCALL>"), brackets=_LIST, between=", ")
HUNYUAN = JsonStyle(name="hunyuan", section=("<tool_calls>", "</tool_calls>"), brackets=_LIST, between=", ")
MINIMAX_M1 = JsonStyle(name="minimax_m1", section=("<tool_calls>\n", "\n</tool_calls>"), between="\n")
GRANITE = JsonStyle(
    name="granite",
    section=("<|tool_call|>", ""),
    other_sections=(("<tool_call>", "</tool_call>"),),
    brackets=_LIST,
    between=", ",
)
PHI4_MINI = JsonStyle(
    name="phi4_mini",
    section=("functools", ""),
    other_sections=(("<|tool_call|>", "<|/tool_call|>"),),
    brackets=_LIST,
    between=", ",
    maybe_bare=True,
)
MISTRAL = JsonStyle(
    name="mistral",
    section=("[TOOL_CALLS]", ""),
    brackets=_LIST,
    between=", ",
    after_name="[ARGS]",
    id_mark="[CALL_ID]",
)
APERTUS = JsonStyle(
    name="apertus", section=("<|tools_prefix|>", "<|tools_suffix|>"), brackets=_LIST, between=", ", shape="keyed"
)
COHERE = JsonStyle(
    name="cohere",
    section=("<|START_ACTION|>", "<|END_ACTION|>"),
    brackets=("[\n    ", "\n]"),
    between=",\n    ",
    name_key="tool_name",
    arguments_key="parameters",
    number="tool_call_id",
)
COMMAND_R_PLUS = JsonStyle(
    name="command_r_plus",
    section=("Action:\n```json\n", "\n```"),
    brackets=("[\n    ", "\n]"),
    between=",\n    ",
    name_key="tool_name",
    arguments_key="parameters",
)

# Without marks at the start of an answer.
LLAMA3_JSON = JsonStyle(
    name="llama3_json", section=("<|python_tag|>", ""), between="; ", arguments_key="parameters", bare=True
)
XLAM = JsonStyle(
    name="xlam",
    other_sections=(("```json", "```"), ("[TOOL_CALLS]", ""), ("<tool_call>", "</tool_call>")),
    brackets=_LIST,
    between=", ",
    bare=True,
)

# The name outside the object.
MISTRAL_ARGS = JsonStyle(
    name="mistral_args", call=("[TOOL_CALLS]", ""), shape="named", after_name="[ARGS]", id_mark="[CALL_ID]"
)
DEEPSEEK = JsonStyle(
    name="deepseek", section=_DEEPSEEK_SECTION, call=_DEEPSEEK_CALL, shape="named", after_name=_SEPARATOR
)
DEEPSEEK_V3 = JsonStyle(
    name="deepseek_v3",
    section=_DEEPSEEK_SECTION,
    call=_DEEPSEEK_CALL,
    between="\n",
    shape="named",
    before_name="function" + _SEPARATOR,
    after_name="\n```json\n",
    after_arguments="\n```",
)
KIMI_K2 = JsonStyle(
    name="kimi_k2",
    section=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
    call=("<|tool_call_begin|>", "<|tool_call_end|>"),
    shape="named",
    before_name="functions.",
    number=":",
    after_name="<|tool_call_argument_begin|>",
)
FUNCTIONARY = JsonStyle(name="functionary", call=("<function=", "</function>"), shape="named", after_name=">")
FUNCTIONARY_V3_2 = JsonStyle(
    name="functionary_v3_2", call=(">>>", ""), shape="named", after_name="\n", bare=True, text_name="all"
)

STYLES = (
    HERMES,
    LONGCAT,
    INTERNLM2,
    GRANITE_20B,
    GIGACHAT,
    GIGACHAT3_1,
    NEMOTRON,
    HUNYUAN,
    MINIMAX_M1,
    GRANITE,
    MISTRAL,
    APERTUS,
    COHERE,
    COMMAND_R_PLUS,
    LLAMA3_JSON,
    PHI4_MINI,
    XLAM,
    MISTRAL_ARGS,
    DEEPSEEK,
    DEEPSEEK_V3,
    KIMI_K2,
    FUNCTIONARY,
    FUNCTIONARY_V3_2,
)
