"""Calls to `get_weather` as each family with arguments in one JSON object writes them, and marks of its template."""

from __future__ import annotations

WEATHER = '{"city": "Paris", "days": 3}'
CALL = f'{{"name": "get_weather", "arguments": {WEATHER}}}'
_COHERE = f'"tool_name": "get_weather", "parameters": {WEATHER}}}'

CALLS = {
    "longcat": f"<longcat_tool_call>\n{CALL}\n</longcat_tool_call>",
    "internlm2": f"<|action_start|><|plugin|>\n{CALL}<|action_end|>",
    "granite_20b": f"<function_call> {CALL}",
    "gigachat": f"<|message_sep|>\n\nfunction call<|role_sep|>\n{CALL}",
    "gigachat3_1": f"<|function_call|>{CALL}",
    "nemotron": f"<TOOLCALL>[{CALL}]</TOOLCALL>",
    "hunyuan": f"<tool_calls>[{CALL}]</tool_calls>",
    "minimax_m1": f"<tool_calls>\n{CALL}\n</tool_calls>",
    "granite": f"<|tool_call|>[{CALL}]",
    "phi4_mini": f"functools[{CALL}]",
    "apertus": f'<|tools_prefix|>[{{"get_weather": {WEATHER}}}]<|tools_suffix|>',
    "cohere": f'<|START_ACTION|>[\n    {{"tool_call_id": "0", {_COHERE}\n]<|END_ACTION|>',
    "command_r_plus": f"Action:\n```json\n[\n    {{{_COHERE}\n]\n```",
    "xlam": f"[{CALL}]",
    "kimi_k2": (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
        f"{WEATHER}<|tool_call_end|><|tool_calls_section_end|>"
    ),
    "functionary": f"<function=get_weather>{WEATHER}</function>",
    "functionary_v3_2": f"get_weather\n{WEATHER}",
}
EARLY = {name: text[: text.index("Par") + 3] for name, text in CALLS.items()}
TEMPLATES = {
    "longcat": "<longcat_tool_call>",
    "internlm2": "<|action_start|><|plugin|>",
    "granite_20b": "'<function_call> ' +",
    "gigachat": "<|message_sep|> <|role_sep|> 'role': 'function call'",
    "gigachat3_1": "<|message_sep|> <|role_sep|> <|function_call|>",
    "nemotron": "<TOOLCALL>[",
    "hunyuan": "<tool_calls>[{",
    "minimax_m1": "<beginning_of_sentence> <tool_calls>",
    "granite": "<|tool_call|>",
    "phi4_mini": "functools[",
    "apertus": "'<|tools_prefix|>'",
    "cohere": "<|START_ACTION|>[",
    "command_r_plus": "'Action: ```json' \"tool_name\"",
    "xlam": "make calls in a single JSON array: [",
    "kimi_k2": "<|tool_call_begin|> <|tool_call_argument_begin|>",
    "functionary": "<function= <|python_tag|>",
    "functionary_v3_2": "'>>>all\\n' <|start_header_id|>",
}
