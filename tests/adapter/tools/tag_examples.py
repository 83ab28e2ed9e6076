"""Examples of formats whose arguments are written one by one between tags, for the tests that run for every format."""

from __future__ import annotations


class Example:
    """A call as the models of a format write it, the start of a chat template, and a call that is cut in a value."""

    def __init__(self, call: str, template: str = "") -> None:
        self.call = call
        self.template = template or call
        self.cut = call[: call.index("Paris") + 3]


def _invoke(prefix: str, section: tuple[str, str]) -> str:
    return (
        f'{section[0]}\n<{prefix}invoke name="get_weather">\n<{prefix}parameter name="city">Paris</{prefix}parameter>\n'
        f'<{prefix}parameter name="days">3</{prefix}parameter>\n</{prefix}invoke>\n{section[1]}'
    )


def _deepseek(space: str, section: str) -> str:
    prefix = f"\uff5cDSML\uff5c{space}"
    written = _invoke(prefix, (f"<{prefix}{section}>", f"</{prefix}{section}>"))
    return written.replace('="city"', '="city" string="true"').replace('="days"', '="days" string="false"')


def _hunyuan(suffix: str) -> str:
    return (
        f"<tool_calls{suffix}>\n<tool_call{suffix}>get_weather<tool_sep{suffix}>\n<arg_key{suffix}>city</arg_key{suffix}>\n"
        f"<arg_value{suffix}>Paris</arg_value{suffix}>\n<arg_key{suffix}>days</arg_key{suffix}>\n"
        f"<arg_value{suffix}>3</arg_value{suffix}>\n</tool_call{suffix}>\n</tool_calls{suffix}>"
    )


TAG_EXAMPLES = {
    "glm": Example(
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>"
    ),
    "glm47": Example(
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value>"
        "<arg_key>days</arg_key><arg_value>3</arg_value></tool_call>"
    ),
    "qwen3_coder": Example(
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
        "</function>\n</tool_call>"
    ),
    "mimo": Example(
        "<tool_call><function=get_weather><parameter=city>Paris</parameter><parameter=days>3</parameter></function>"
        "</tool_call>",
        "You are MiMo. <function=f> <parameter=p>",
    ),
    "seed_oss": Example(
        "<seed:tool_call>\n<function=get_weather>\n<parameter=city>Paris</parameter>\n<parameter=days>3</parameter>\n"
        "</function>\n</seed:tool_call>"
    ),
    "minimax_m2": Example(_invoke("", ("<minimax:tool_call>", "</minimax:tool_call>"))),
    "dots": Example(_invoke("", ("<dots_function_call>", "</dots_function_call>"))),
    "deepseek_v32": Example(_deepseek("", "function_calls")),
    "deepseek_v4": Example(_deepseek("", "tool_calls")),
    "deepseek_v41": Example(_deepseek(" ", "calls")),
    "hy3": Example(_hunyuan(":opensource")),
    "hy_v3": Example(_hunyuan("")),
    "step3": Example(
        "<\uff5ctool_calls_begin\uff5c>\n<\uff5ctool_call_begin\uff5c>function<\uff5ctool_sep\uff5c>"
        '<steptml:invoke name="get_weather">\n<steptml:parameter name="city">Paris</steptml:parameter>\n'
        '<steptml:parameter name="days">3</steptml:parameter>\n</steptml:invoke><\uff5ctool_call_end\uff5c>\n'
        "<\uff5ctool_calls_end\uff5c>"
    ),
    "minicpm5": Example(
        '<function name="get_weather"><param name="city">Paris</param><param name="days">3</param></function>',
        '<function name="f"><param name="p"><![CDATA[',
    ),
    "gemma4": Example('<|tool_call>call:get_weather{city:<|"|>Paris<|"|>,days:3}<tool_call|>'),
    "functiongemma": Example(
        "<start_function_call>call:get_weather{city:<escape>Paris<escape>,days:3}<end_function_call>"
    ),
    "minimax_m3": Example(
        ']<]minimax[>[<tool_call>\n]<]minimax[>[<invoke name="get_weather">]<]minimax[>[<city>Paris]<]minimax[>[</city>'
        "]<]minimax[>[<days>3]<]minimax[>[</days>]<]minimax[>[</invoke>\n]<]minimax[>[</tool_call>"
    ),
}
