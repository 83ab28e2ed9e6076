"""Chat templates that would take any time or memory, by what they use for it."""

from __future__ import annotations

_BIG = "{% set x = 'a' * 900000 %}"
_MANY = "{% for i in range(99999) %}"
_END = "{% endfor %}"
_GROWING = "{%% set ns = namespace(x=%s) %%}{%% for i in range(99) %%}{%% set ns.x = ns.x %s ns.x %%}{%% endfor %%}"
_DEEP = (
    "{% set ns = namespace(x=(1,), y=(1,)) %}"
    "{% for i in range(40) %}{% set ns.x = (ns.x, ns.x) %}{% set ns.y = (ns.y, ns.y) %}{% endfor %}"
)
"""Two values that are small in memory and huge when they are looked through."""


def _each(*expressions: str, before: str = _BIG) -> dict[str, str]:
    """Return templates that evaluate an expression again and again."""
    return {each: f"{before}{_MANY}{{% set y = {each} %}}{_END}" for each in expressions}


def _once(*expressions: str, before: str = _BIG) -> dict[str, str]:
    return {each: f"{before}{{{{ {each} }}}}" for each in expressions}


def _chain(count: int, start: str, end: str) -> str:
    """Return macros or blocks of which each calls the next twice."""
    return "".join(start % (i, i + 1, i + 1) for i in range(count)) + end % count


LOOPS = {
    "nested loops": 2 * _MANY + 2 * _END,
    "a loop with a test": _MANY + "{% for j in range(99999) if j < 0 %}" + 2 * _END,
    "a loop over a filter": _MANY + "{% for j in range(99999) | select('string') %}" + 2 * _END,
    "a recursive loop": "{% for a in range(9999) recursive %}{% if loop.depth < 5 %}{{ loop(range(9999)) }}"
    "{% endif %}{% endfor %}",
    "a loop over itself": _MANY + "{% for j in loop %}{% for k in loop %}" + 3 * _END,
    "a loop that feeds itself": "{% set l = [1] %}{% for i in l %}{% set _ = l.append(i) %}{% endfor %}",
    "a recursive macro": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(90) }}",
    "a chain of macros": _chain(
        60, "{%% macro m%d() %%}{{ m%d() }}{{ m%d() }}{%% endmacro %%}", "{%% macro m%d() %%}{%% endmacro %%}{{ m0() }}"
    ),
    "a chain of blocks": "{% if false %}"
    + _chain(
        60, "{%% block b%d %%}{{ self.b%d() }}{{ self.b%d() }}{%% endblock %%}", "{%% block b%d %%}{%% endblock %%}"
    )
    + "{% endif %}{{ self.b0() }}",
    "a long body": _MANY + "{% set x = messages[0].content[0] %}" * 300 + _END,
    "a long branch": _MANY + "{% if true %}" + "{% set x = messages[0].content[0] %}" * 300 + "{% endif %}" + _END,
    "long defaults": "{% macro m(" + ",".join(f"a{i}=messages[0].content" for i in range(300)) + ") %}{% endmacro %}"
    f"{_MANY}{{{{ m() }}}}{_END}",
    "a cycler": _MANY + "{% set c = cycler(*range(99999)) %}" + _END,
    "the length of a loop": _MANY
    + "{% for j in range(99999) | map('string') %}{{ loop.length }}{% break %}"
    + 2 * _END,
    "a test of a sequence": _MANY
    + "{% for j in range(99999) | map('string') %}{{ loop is sequence }}{% break %}"
    + 2 * _END,
}

TEXTS = {
    "doubling": _GROWING % ("'a'", "+"),
    "doubling with ~": _GROWING % ("'a'", "~"),
    "doubling a list": _GROWING % ("[1]", "+"),
    "a long sum": _BIG + "{{ " + " + ".join(["x"] * 400) + " }}",
    "long concatenation": _BIG + "{{ " + " ~ ".join(["x"] * 400) + " }}",
    "output": f"{_BIG}{_MANY}{{{{ x }}}}{_END}",
    "output of sums": f"{_BIG}{_MANY}{{{{ x + x }}}}{_END}",
    "a set block": f"{_BIG}{{% set y %}}{_MANY}{{{{ x }}}}{_END}{{% endset %}}",
    "a set block of sums": f"{_BIG}{{% set y %}}{_MANY}{{{{ x + 'a' }}}}{_END}{{% endset %}}",
    "a filter block": f"{_BIG}{{% filter upper %}}{_MANY}{{{{ x }}}}{_END}{{% endfilter %}}",
    "a macro": f"{_BIG}{{% macro m() %}}{_MANY}{{{{ x }}}}{_END}{{% endmacro %}}{{{{ m() }}}}",
    "a call block": f"{_BIG}{{% macro m() %}}{_MANY}{{{{ caller() }}}}{_END}{{% endmacro %}}"
    "{% call m() %}{{ x }}{% endcall %}",
    "a block": f"{_BIG}{{% if false %}}{{% block a %}}{_MANY}{{{{ 'a' * 9000 }}}}{_END}{{% endblock %}}{{% endif %}}"
    "{% set y = self.a() %}",
    "kept lists": f"{{% set ns = namespace(l=[]) %}}{_MANY}{{% set ns.l = [ns.l, {','.join(['[]'] * 500)}] %}}{_END}",
    "kept dicts": "{% set ns = namespace(l=[]) %}"
    f"{_MANY}{{% set ns.l = [ns.l, {','.join(['{1: 1}'] * 500)}] %}}{_END}",
    "kept slices": f"{_BIG}{{% set ns = namespace(l=[]) %}}{_MANY}{{% set ns.l = [ns.l, x[1:]] %}}{_END}",
}

OPERATORS = _once(
    *("'a' * 1000000000", "([1] * 1000000000) | length", "'%5000000000d' % 1", "'%.5000000000f' % 1"),
    *(
        "'%*d' % (5000000000, 1)",
        "'%*d' % (-50000000, 1)",
        "'%(a(b))5000000000d' % {'a(b)': 1}",
        "('%(a)s' * 9000) % {'a': x}",
        "('%(a)s' * 300) % {'a': x[:90000]}",
        "'%s' % ([x] * 900,)",
    ),
    *("'%5000000000d' is odd", "'%5000000000d' is even", "'%5000000000d' is divisibleby(1)"),
    *("['%5000000000d'] | select('odd') | list", "x.join(x)", "(x | safe).join([x] * 99)"),
) | _each(
    *(
        "x + 'a' == x + 'b'",
        "x == z",
        "x < z",
        "x is eq(z)",
        "z[:9000] ~ 'b' in x",
        "-1 in l",
        "-1 is in l",
        "0.5 in range(99999)",
    ),
    *("d.keys() - d.keys()", "x[::-1]", "(x | safe) + x"),
    before=_BIG + "{% set z = 'a' * 900000 %}{% set l = range(9999) | list %}{% set d = dict.fromkeys(range(9999)) %}",
)

METHODS = _once(
    *(
        "'{:5000000000}'.format(1)",
        "'{:{}}'.format(1, 5000000000)",
        "'{:.5000000000f}'.format(1.0)",
        "('{0}' * 9000).format(x)",
    ),
    *(
        "'{a:5000000000}'.format_map({'a': 1})",
        "'{}'.format([x] * 900)",
        "'a'.center(5000000000)",
        "'a'.ljust(5000000000)",
    ),
    *("'a'.rjust(5000000000)", "'a'.zfill(5000000000)", "'\\t'.expandtabs(2000000000)", "x.replace('a', x)"),
    *(
        "x.translate({97: x})",
        "x[:9000].translate({97: x[:9000]})",
        "x.translate([x] * 128)",
        "x.rfind('b' + x[:450000])",
        "x.rsplit('b' + x[:450000])",
    ),
    *("x.strip('b' * 450000 + 'a')", "x.encode('ascii', 'namereplace')", "dict.fromkeys(range(99999)) | string | list"),
) | _each(
    *("x.split()", "x.split('a')", "x.splitlines()", "x.upper()", "x.find(x[1:] + 'b')", "x.count(x[:450000])"),
    *("dict.fromkeys(range(99999))", "dict(range(9999) | batch(2))", "namespace(**dict([(x, 1)]))"),
)

FILTERS = _once(
    *("'%5000000000d' | format(1)", "'a' | center(5000000000)", "'a\\nb' | indent(5000000000)", "x | replace('', x)"),
    *(
        "('\\n' * 900000) | indent(x, blank=true)",
        "('\\n' * 3000) | indent(x[:9000], blank=true)",
        "range(99999) | join(x)",
        "([{'a': x}] * 9999) | join(attribute='a')",
    ),
    *("x | trim('b' * 450000 + 'a')", "[1] | batch(5000000000, 0) | list", "[1] | slice(5000000000) | list"),
    *("x | wordwrap(1)", "('a-' * 450000) | wordwrap(1)", "x[:9000] | wordwrap(1, wrapstring=x)", "x | pprint"),
    *("[[1]] | tojson(indent=1000000000)", "[[1]] | tojson(indent=x)", "([1] * 9999) | tojson(separators=(x, ':'))"),
    *("([x] * 9999) | map('string') | tojson", "([x] * 9999) | select | tojson", "([[1]] * 9999) | sum(start=[])"),
    *("('[' * 900000) | fromjson", "('http://a.bc ' * 9000) | urlize(rel=x)", "('(' * 90000 ~ ')' * 90000) | urlize"),
    *(
        "('<!---->' * 90000) | striptags",
        "lipsum(n=1000000)",
        "lipsum(n=1, min=99999999, max=100000000)",
        "lipsum(n=1000000000, min=-5, max=0)",
    ),
    *("strftime_now('%c' * 900000)", "range(99999) | map('string') | map('upper') | map('lower') | list"),
) | _each(
    *("l | list", "l | sort", "l | unique | list", "l | min", "l | select('none') | first", "l | reverse | list"),
    *("([{'a': 1}] * 999) | groupby('a')", "dict.fromkeys(l) | dictsort", "x | title", "x | e | e", "x | urlencode"),
    *(
        "x | wordcount",
        "{'a': x} | xmlattr",
        "x | truncate(899999)",
        "x | int",
        "('[' ~ '{\"\":0},' * 9999 ~ '0]') | fromjson",
    ),
    before=_BIG + "{% set l = range(9999) | list %}",
)

NESTED = _once(
    *("ns.x", "ns.x | tojson", "ns.x | pprint", "ns.x ~ 'a'", "'%s' % (ns.x,)", "'{}'.format(ns.x)", "ns.x == ns.y"),
    *("ns.x is eq(ns.y)", "ns.x < ns.y", "{ns.x: 1}", "{}[ns.x]", "{}.get(ns.x)", "ns.x in {}", "ns.x in [ns.y]"),
    *("[ns.x].index(ns.y)", "[ns.x, ns.y] | sort", "[ns.x] | unique | list", "[{}] | map(attribute=ns.x) | list"),
    *("raise_exception(ns.x)", "dict([(ns.x, 1)])", "dict.fromkeys([ns.x])", "ns.x is filter", "[ns.x] | join", "ns"),
    before=_DEEP,
) | {"loop.changed": _DEEP + "{% for i in [ns.x, ns.y] %}{{ loop.changed(i) }}{% endfor %}"}

TEMPLATES = LOOPS | TEXTS | OPERATORS | METHODS | FILTERS | NESTED
"""All of them, by name."""

REFUSED = _once(
    *("9 ** 9 ** 9", "1 | round(-1000000000)", "1 | round(1000000000, 'ceil')", "(1).to_bytes(5000000000, 'big')"),
    *(
        "('\\u00e9' * 900000).encode('punycode')",
        "('f' * 900000) | int(base=16)",
        "''.maketrans('a', 'b')",
    ),
) | {
    "a recursive macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a recursive loop": "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "a recursive block": "{% block a %}{{ self.a() }}{% endblock %}",
    "large numbers": "{% set ns = namespace(x=3) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "numbers from text": "{% set y = ('f' * 900) | int(base=16) %}{{ y * y }}",
}
"""Templates of which an operation is refused, whatever is left of the budget."""

UNCOMPILED = {
    "many loops": "{% for a in b %}" * 30 + _END * 30,
    "many branches": "{% if a %}" * 400 + "{% endif %}" * 400,
    "many parentheses": "{{ " + "(" * 500 + "1" + ")" * 500 + " }}",
    "many lists": "{{ " + "[" * 500 + "1" + "]" * 500 + " }}",
    "a long sum": "{{ " + " + ".join(["a"] * 5000) + " }}",
    "a large number": "{{ 0x" + "f" * 60000 + " // 7 }}",
    "a long number": "{{ " + "9" * 60000 + " }}",
    "many names in many branches": "".join(f"{{% if a %}}{{% set b{i} = 1 %}}{{% endif %}}" for i in range(1600)),
    "many expressions": "{{ a.b.c.d }}" * 5000,
    "a long text": "a" * 300_000,
}
"""Templates that would take long to compile, or cannot be."""
