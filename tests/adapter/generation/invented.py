"""Templates that write calls as no known family of models does."""

from __future__ import annotations

from collections.abc import Mapping

_OBJECT = '{"tool": "{{ name }}", "input": {{ args | tojson }}}'
_HERMES = '<tool_call>\n{"name": "{{ name }}", "arguments": {{ args | tojson }}}\n</tool_call>'
_TAGS = (
    '<zz_call><fn is="{{ name }}">\n{% for key, value in args.items() %}<arg key="{{ key }}">'
    "{{ value if value is string else value | tojson }}</arg>\n{% endfor %}</fn></zz_call>"
)
_VALUES = "{% for key, value in args.items() %}<zk>{{ key }}</zk><zv>{{ value if value is string else value | tojson }}"
_PYTHON = (
    "{{ '<yy>[' if loop.first }}{{ name }}({% for key, value in args.items() %}{{ key }}={{ value | tojson }}"
    "{{ ', ' if not loop.last }}{% endfor %}){{ ']</yy>' if loop.last else ', ' }}"
)
_BRACES = (
    "<zz>call:{{ name }}{{ '{' }}{% for key, value in args | dictsort %}{{ key }}:"
    "{{ '<q>' ~ value ~ '<q>' if value is string else value | tojson }}{{ ',' if not loop.last }}"
    "{% endfor %}{{ '}' }}</zz>"
)

INVENTED: Mapping[str, str] = {
    "objects between marks": f"<zz_call>\n{_OBJECT}\n</zz_call>",
    "objects between marks of another shape": "\u25c1call\u25b7" + _OBJECT + "\u25c1/call\u25b7",
    "objects after a mark": "@@tool " + _OBJECT,
    "objects with a separator": "{{ '<zz>' if loop.first }}" + _OBJECT + "{{ '</zz>' if loop.last else '; ' }}",
    "marks with a separator": f"<zz>{_OBJECT}</zz>" + "{{ '\\n---\\n' if not loop.last }}",
    "marks before known ones": f"<all>{_HERMES}",
    "marks after known ones": f"{_HERMES}</all>",
    "two marks": "<zz><yy>" + _OBJECT + "</yy></zz>",
    "a list": "{{ '<zz>[' if loop.first }}" + _OBJECT + "{{ ']</zz>' if loop.last else ', ' }}",
    "a list after a word": "{{ 'calls_of[' if loop.first }}" + _OBJECT + "{{ ']' if loop.last else ', ' }}",
    "a list over lines": "{{ '<zz>\\n[\\n  ' if loop.first }}"
    + _OBJECT
    + "{{ '\\n]\\n</zz>' if loop.last else ',\\n  ' }}",
    "objects within others": '<zz>{"type": "function", "function": ' + _OBJECT + "}</zz>",
    "more members": '<zz>{"id": "{{ call.id }}", "tool": "{{ name }}", "input": {{ args | tojson }}}</zz>',
    "arguments first": '<zz>{"input": {{ args | tojson }}, "tool": "{{ name }}"}</zz>',
    "names as keys": '<zz>{% raw %}{{% endraw %}"{{ name }}": {{ args | tojson }}}</zz>',
    "names before objects": "<call of={{ name }}>{{ args | tojson }}</call>",
    "names and objects only": "<zz>{{ name }}{{ args | tojson }}</zz>",
    "names in a section": (
        "{{ '<|zs|>' if loop.first }}<|zc|>{{ name }}<|za|>{{ args | tojson }}<|/zc|>{{ '<|/zs|>' if loop.last }}"
    ),
    "ids before names": "<|zc|>{{ call.id }}<|zn|>{{ name }}<|za|>{{ args | tojson }}<|/zc|>",
    "ids after names": "<|zc|>{{ name }}<|zi|>{{ call.id }}<|za|>{{ args | tojson }}<|/zc|>",
    "numbers": "<|zc|>{{ name }}#{{ loop.index0 }}<|za|>{{ args | tojson }}<|/zc|>",
    "objects without marks": "{{ '\\n' }}" + _OBJECT,
    "tags": _TAGS,
    "tags with a separator": _TAGS + "{{ '\\n' if not loop.last }}",
    "tags in a section": "{{ '<zs>\\n' if loop.first }}" + _TAGS + "{{ '\\n</zs>' if loop.last else '\\n' }}",
    "tags after names": "<zz>{{ name }}\n" + _VALUES + "</zv>\n{% endfor %}</zz>",
    "values over lines": "<zz>{{ name }}\n" + _VALUES.replace("<zv>", "<zv>\n") + "\n</zv>\n{% endfor %}</zz>",
    "tags with types": _TAGS.replace('">{{ value', "\" text={{ 'yes' if value is string else 'no' }}>{{ value"),
    "Python": _PYTHON,
    "braces": _BRACES,
}
"""Templates of one call, for `written`."""

UNCLEAR: Mapping[str, str] = {
    "names in closing marks": "<{{ name }}>{{ args | tojson }}</{{ name }}>",
    "another name": '<zz>{"tool": "{{ name }}2", "input": {{ args | tojson }}}</zz>',
    "names in upper case": '<zz>{"tool": "{{ name | upper }}", "input": {{ args | tojson }}}</zz>',
    "marks of prose": "({{ name }} {{ args | tojson }})",
    "no keys": "<zz>{{ name }}{% for key, value in args.items() %}<v>{{ value }}</v>{% endfor %}</zz>",
    "values in quotes": (
        "<zz>{{ name }}{% for key, value in args.items() %}<k>{{ key }}</k><v>{{ value | tojson }}</v>{% endfor %}</zz>"
    ),
    "calls after the end": "<zz>{{ name }}{{ args | tojson }}</zz><|end|><|assistant|>",
    "half of the calls": "{% if loop.first %}<zz>{{ name }}{% endif %}{{ args | tojson }}</zz>",
}
"""Templates whose calls could be read in several ways, or in none."""
