"""Templates that spend a budget: what they render is what Jinja renders, and they end whatever they compute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import filters, tests
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from adapter.prompt import Budget, ChatTemplate, TemplateTooSlow
from adapter.prompt.jinja_template import JinjaTemplate
from adapter.prompt.metered.budget import BASE_UNITS, MAX_RENDERED, BudgetExceeded
from adapter.prompt.sandbox import environment_of

VARIABLES: Mapping[str, Any] = {
    "s": "one Two\n  three\tfour ",
    "n": 7,
    "f": 2.5,
    "l": [3, 1, 2, 1],
    "d": {"b": 1, "a": [1, {"x": None}], "c": "é<&>"},
    "m": [{"role": "user", "n": {"x": 2}}, {"role": "Assistant", "n": {"x": 1}}, {"role": "user"}],
    "e": [],
}
EXPRESSIONS = """\
s + 'x' + s ~ n ~ none ~ l ~ d
s + s + s + s + s + s + s + s + 'x'
'a' + 'b' + ('c' + s) + s
l + [1] + l + [2] + l + [3]
(1, 2) + (n,)
n + 1 + n + 2 + f
n - 1 - f
d.keys() - ['a']
n * 3 * 'ab'
[n] * 2
'%s and %05.1f%%' % (s, f)
'%(b)s' % d
n % 3, f % 2, -n % 3
n / 2, n // 2, +n, -n, not n
s == 'x', n < 8 < f, 'x' != s, l == [3, 1, 2, 1], d == d, 1 < n <= 7
'one' in s, 'x' not in s, 1 in l, 'b' in d, n in [7], n not in e, 2 in range(3), 'a' in d.keys()
'x' in l | map('string')
s[1:], s[::-1], l[1:3], l[-1], d['b'], d[s], s[n], m[0]['n'].x, m[n - 7].role
{'k': l, n: s, (1, 2): 3}
{(1, 2): 3}[(1, 2)]
s if n > 8 else l, (s if false)
s | capitalize, s | lower, s | upper, s | title, s | trim, s | trim('o '), s | length, s | wordcount
s | reverse
s | center(40), s | indent, s | indent(2, true, true), s | indent('> '), s | replace('o', '00')
s | replace('o', '', 1)
s | truncate(9), s | truncate(9, true), s | wordwrap(5), s | list, s | first, s | last, s | string
s | pprint
s | e, s | forceescape, s | urlencode, d | urlencode, 'a http://x.yz b' | urlize
'<b>x</b>  y' | striptags, d | xmlattr
(s | safe) + '<', (s | e) ~ '<', ('<%s>' | safe) % '<', ('<' | safe).join(['<', s])
('{}' | safe).format('<')
'%s-%s' | format(s, n), '%(a)s' | format(a=1)
n | string, '12' | int, 'x' | int(5), '0x1f' | int(base=16), '4.9' | int, f | int, '2.5' | float
'x' | float(1.5)
f | round, f | round(1, 'ceil'), 1234 | round(-2), -n | abs, 2048 | filesizeformat
2048 | filesizeformat(true)
l | sort, l | sort(reverse=true), l | unique | list, l | min, l | max, l | sum
[0.1, 0.2, 0.3] | sum, [[1], [2]] | sum(start=[])
l | join, l | join(', '), m | join('-', attribute='role'), l | map('string') | join('.')
e | join('x'), s | join('.')
l | list, range(3) | list, d | list, l | reverse | list, l | select('odd') | reverse | length
range(3) | reverse | list
l | first, l | last, e | first, [1] | random, l | count, d | length
l | batch(3) | list, l | batch(3, 0) | list, l | slice(3) | list, l | slice(3, 0) | list
m | map(attribute='role') | list, m | map(attribute='n.x', default=0) | list
l | map('string') | map('upper') | list, e | map('x') | list
l | select | list, l | select('>', 1) | list, l | reject('odd') | list, m | selectattr('n') | list
m | rejectattr('role', '==', 'user') | list
m | selectattr('role', 'in', ['user']) | map(attribute='role') | list
m | groupby('role'), m | groupby('n.x', default=0), m | sort(attribute='role') | list
m | sort(attribute='role', case_sensitive=true) | list
m | map(attribute='role') | unique | list, m | min(attribute='role'), d | dictsort
{'b': 2, 'a': 3} | dictsort(false, 'value'), d | items | list
d | default('x'), x | default('y'), '' | d('z', true), d | attr('keys'), s | attr('x')
n is odd, n is even, n is divisibleby(7), n is in([7]), n is eq(7), n is lt(8), s is lower
s is upper, n is sameas(n), 'sort' is filter, 'odd' is test
x is defined, x is undefined, none is none, true is true, false is false, true is boolean
n is integer, f is float, n is number
s is string, d is mapping, l is sequence, l is iterable, n is iterable, s is escaped
range is callable, n is ge(7), n is ne(7), n is gt(6), n is le(6)
s.upper(), s.split(), s.split('o'), s.split('o', 1), s.rsplit('o', 1), s.splitlines()
s.splitlines(true), s.partition('T'), s.rpartition('T')
s.strip(), s.lstrip('o'), s.rstrip(' r'), s.find('o'), s.rfind('o'), s.index('T'), s.count('o')
s.startswith(('x', 'one')), s.endswith('r ')
s.replace('o', 'xx'), s.replace('o', 'x', 1), s.center(40, '*'), s.ljust(40), s.rjust(40)
s.zfill(40), s.expandtabs(4), s.removeprefix('one')
', '.join(m | map(attribute='role')), ', '.join(['a']), 'ab'.translate({97: 'x'}), 'é'.encode()
'é'.encode().decode(), 'é'.encode('utf-8').hex()
'{} {a!r:>5} {0[0]}'.format(s, a=n), '{a}'.format_map({'a': n}), '{:{}}'.format(n, 5)
'{x.role}'.format(x=d)
d.get('b'), d.get('x', n), d.items() | list, d.keys() | list, d.values() | list, d.copy(), l.copy()
l.index(2), l.count(1), (1, 2).index(2)
n.bit_length(), f.is_integer(), f.hex(), (d.keys() - ['a']).union(['z']) | sort
namespace(a=n).a, namespace({'a': 1}, b=2).b, cycler(1, 2).next(), joiner('-')() ~ 'x'
range(1, 9, 3) | list
x, d.x, s.x, l.x, l.pop is defined
""".splitlines()
STATEMENTS = """\
{% for i in l %}{{ loop.index }}{{ loop.first }}{{ loop.last }}{{ loop.revindex }}{{ i }}{% endfor %}
{% for i in l %}{{ loop.length }}{{ i }}{{ loop.cycle('a', 'b') }}{% endfor %}
{% for i in l if i > 1 %}{{ i }}{{ loop.index }}{% else %}none{% endfor %}{% for i in e %}{% else %}none{% endfor %}
{% for i in l %}{{ loop.previtem }}-{{ loop.nextitem }}{{ loop.changed(i) }}{{ loop.depth }}{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }}{% endfor %}{% for k, v in d | items %}{{ k }}{% endfor %}
{% for i in [[1, [2, [3]]], 4] recursive %}{{ loop.depth }}{{ loop(i) if i is iterable else i }}{% endfor %}
{% macro q(a, b=n) %}<{{ a }}{{ b }}{{ varargs }}{{ kwargs }}>{% endmacro %}{{ q(1) }}{{ q(1, 2, 3, x=4) }}
{% macro q(a, b='y' + s) %}{{ a }}{{ b }}{{ caller(a) if caller }}{% endmacro %}{% call(z) q(1) %}[{{ z }}]{% endcall %}
{% macro q(a, b='y' + s) %}{{ a }}{{ b }}{% endmacro %}{{ q(*[1, 2]) }}{{ q(**{'a': 5}) }}
{% macro f(i) %}{{ i }}{% if i %}{{ f(i - 1) }}{% endif %}{% endmacro %}{{ f(3) }}{{ f.name }}{{ f.arguments }}
{% set x = s + s %}{{ x }}{% set x, y = l[:2] %}{{ x }}{{ y }}{% set z %}a{{ n }}b{% endset %}{{ z }}
{% set z | upper %}a{{ s }}{% endset %}{{ z }}{{ 'ab' 'cd' }}{{ -1 }}{{ 1.5 }}{{ [] }}
{% set ns = namespace(a=1) %}{% for i in l %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns.b is defined }}
{% filter upper %}a{{ s }}{% endfilter %}{% filter replace('a', 'b') %}{{ s }}a{% endfilter %}
{% with a = n, b = s %}{{ a }}{{ b }}{% endwith %}{% block c %}{{ s + s }}{{ n }}{% endblock %}{{ self.c() }}
{% if n > 8 %}a{% elif s %}{% set y = 1 %}{{ y }}{% else %}c{% endif %}{{ y }}{{ 1 if n }}
{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% raw %}{{ x }}{% endraw %}{# comment #}
{{ lipsum(n=1, min=2, max=3) | length > 1 }}{{ dict(a=1) }}
""".splitlines()


def plain(source: str) -> str:
    """Return what Jinja renders."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    return environment.from_string(source).render(VARIABLES)


@pytest.mark.parametrize("source", [*("{{ (" + each + ",) }}" for each in EXPRESSIONS), *STATEMENTS])
def test_templates_render_as_jinja_does(source: str) -> None:
    """A template renders what Jinja renders."""
    assert JinjaTemplate(source).render(VARIABLES) == plain(source)


@pytest.mark.parametrize(
    "source", ["{{ x.y }}", "{{ s + n }}", "{{ l | sum(start='') }}", "{{ m | min }}", "{{ n() }}"]
)
def test_templates_fail_as_jinja_does(source: str) -> None:
    """A template raises the error that Jinja raises."""
    with pytest.raises(Exception, match=r".+") as expected:
        plain(source)
    with pytest.raises(expected.type):
        JinjaTemplate(source).render(VARIABLES)


def test_all_filters_and_tests() -> None:
    """All filters and tests of Jinja are there, and no others, since the cost of each must be known."""
    environment, _ = environment_of("")
    assert set(environment.filters) - set(filters.FILTERS) == {"items of a loop", "fromjson", "from_json"}
    assert set(environment.tests) == set(tests.TESTS)
    assert not set(filters.FILTERS) - set(environment.filters)


names = st.sampled_from(["s", "n", "l", "d", "m", "x"])
constants = st.sampled_from(["'ab'", "3", "99999", "none", "[]", "{'a': 1}", "(1, 2)", "2.5"])
FILTERS = sorted(set(filters.FILTERS) - {"random", "map", "pprint"})
METHODS = ["center", "format", "get", "items", "join", "replace", "split", "upper", "zfill"]
expressions = st.recursive(
    names | constants,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "//", "%", "~", "==", "<", "in", "and", "or"]), inner).map(
            lambda e: f"({' '.join(e)})"
        ),
        st.tuples(inner, st.sampled_from(FILTERS)).map(lambda e: f"({e[0]} | {e[1]})"),
        st.tuples(inner, st.sampled_from(FILTERS), inner).map(lambda e: f"({e[0]} | {e[1]}({e[2]}))"),
        st.tuples(
            inner,
            st.sampled_from(["upper", "split", "join", "center", "replace", "format", "get", "items", "zfill"]),
            inner,
        ).map(lambda e: f"{e[0]}.{e[1]}({e[2]})"),
        st.tuples(inner, inner).map(lambda e: f"{e[0]}[{e[1]}:]"),
        st.lists(inner, max_size=3).map(lambda e: f"[{', '.join(e)}]"),
        inner.map(lambda e: f"range({e})"),
    ),
    max_leaves=8,
)
blocks = st.recursive(
    st.one_of(
        expressions.map(lambda e: "{{ " + e + " }}"),
        st.tuples(names, expressions).map(lambda e: f"{{% set {e[0]} = {e[1]} %}}"),
    ),
    lambda inner: st.one_of(
        st.tuples(expressions, inner).map(lambda e: f"{{% for x in {e[0]} %}}{e[1]}{{% endfor %}}"),
        st.tuples(expressions, inner).map(lambda e: f"{{% if {e[0]} %}}{e[1]}{{% endif %}}"),
        st.tuples(names, inner).map(lambda e: f"{{% set {e[0]} %}}{e[1]}{{% endset %}}"),
        inner.map(lambda e: f"{{% macro g(x) %}}{e}{{{{ g(x) }}}}{{% endmacro %}}{{{{ g(1) }}}}"),
        st.lists(inner, max_size=4).map("".join),
    ),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None)
@given(blocks)
def test_any_template_ends(source: str) -> None:
    """Any template ends within its budget, and renders what Jinja renders unless it exceeds it."""
    budget = Budget(20_000)
    try:
        text = JinjaTemplate(source).render(VARIABLES, budget)
    except BudgetExceeded:
        return
    except Exception:
        text = None
    assert budget.spent <= 20_000
    if text is not None and "lipsum" not in source:
        assert text == plain(source)


def test_the_budget_grows_with_the_messages() -> None:
    """A template renders any number of messages, of any length, if it takes a constant time for each."""
    template = ChatTemplate("{% for m in messages %}{{ m.role + ': ' + m.content | trim + eos_token }}{% endfor %}")
    messages = [{"role": "user", "content": " Hi "}] * 50_000
    assert template.render(messages) == "user: Hi" * 50_000
    each = ChatTemplate("{% for m in messages %}{% for c in m.content %}{{ c }}{% endfor %}{% endfor %}")
    assert each.render([{"role": "user", "content": "x" * 200_000}]) == "x" * 200_000


def test_a_template_that_compares_all_messages() -> None:
    """A template may look at all messages for each, up to a number that no conversation has."""
    template = ChatTemplate(
        "{% for m in messages %}{% for n in messages[:loop.index] %}{% endfor %}{{ m.content }}{% endfor %}"
    )
    message = {"role": "user", "content": "x"}
    assert template.render([message] * 500) == "x" * 500
    with pytest.raises(TemplateTooSlow, match="fewer or shorter messages"):
        template.render([message] * 10_000)


def test_a_budget_that_is_used_up() -> None:
    """A budget that is used up stays so, whatever is caught, and does not grow again."""
    budget = Budget(10, {"messages": [{"content": "x" * 1000}]})
    budget.spend(BASE_UNITS // 100)
    for _ in range(2):
        with pytest.raises(BudgetExceeded):
            budget.spend(10**6)
    with pytest.raises(BudgetExceeded):
        budget.spend(0)
    assert Budget().text(Markup("<")) == "<"


def test_a_budget_whose_memory_is_used_up() -> None:
    """A value that was too large uses up the budget of work, too."""
    budget = Budget(variables={"text": "x" * 100_000})
    with pytest.raises(BudgetExceeded):
        budget.ensure(MAX_RENDERED)
    with pytest.raises(BudgetExceeded):
        budget.spend(1)


def test_a_budget_whose_objects_became_many() -> None:
    """A rendering beside which the process got millions of objects gets no more work, also once they are gone."""
    budget = Budget(0, {"text": "x" * 200_000})
    budget.spend(1)
    objects = [float(number) for number in range(3_100_000)]
    with pytest.raises(BudgetExceeded):
        budget.spend(2_000_000)
    objects.clear()
    with pytest.raises(BudgetExceeded):
        budget.spend(0)


def test_the_longest_value() -> None:
    """No value is longer than a prompt may be, however much memory is left."""
    for spend in (Budget.ensure, lambda budget, length: budget.fill(length, 1)):
        budget = Budget(variables={"text": "x" * 1_000_000})
        spend(budget, MAX_RENDERED)
        with pytest.raises(BudgetExceeded):
            spend(budget, MAX_RENDERED + 1)
