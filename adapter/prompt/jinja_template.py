"""Compiled Jinja templates, rendered with limits."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from functools import lru_cache
from time import thread_time
from typing import Any

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError

from adapter.prompt.metered.budget import Budget
from adapter.prompt.metered.code_generator import MeteredCodeGenerator
from adapter.prompt.metered.context import MeteredContext
from adapter.prompt.sandbox import copied, environment_of
from subnet.errors import SettingsError

MAX_SOURCE = 256 * 1024
"""Maximum length of a template, in characters."""

# Ten times and more what any published template has.
_MAX_NODES = 20_000
_MAX_COPIES = 500_000
# In bytes.
_SMALL = 1_000_000
_MAX_GARBAGE = 64_000_000
# Number of characters up to which the memory of what a template writes is not looked at.
_CHECKED = 250_000


class _Garbage:
    """Memory of renderings that may have left it in reference cycles, which only garbage collection frees. That runs
    by itself when there are many objects, whatever their size.
    """

    def __init__(self) -> None:
        self._size = 0

    def add(self, size: int) -> None:
        """Count what a rendering made, in bytes, and collect garbage if that becomes much. Small ones do not count."""
        if size > _SMALL:
            self._size += size
            if self._size > _MAX_GARBAGE:
                self._size = 0
                gc.collect()


_garbage = _Garbage()


class JinjaTemplate:
    """Template of a model. `variables` are the names that it reads."""

    def __init__(self, source: str, bos_token: str = "", eos_token: str = "") -> None:
        """Compile the template. Raises SettingsError if it does not compile."""
        self._template, self.variables = _compile(source)
        self._environment, self._changes_lists = environment_of(source)
        self._globals = {**self._template.globals, "bos_token": bos_token, "eos_token": eos_token}

    def render(self, variables: Mapping[str, Any], budget: Budget | None = None, deadline: float | None = None) -> str:
        """Return the rendered text. Raises whatever the template raises.

        Raises BudgetExceeded if it takes more than `budget`, by default one that grows with `variables`, and
        SecurityError if this thread's CPU time has passed `deadline` before the rendering.
        """
        if deadline is not None and thread_time() > deadline:
            raise SecurityError("rendering takes too long")
        budget = budget or Budget(variables=variables)
        try:
            return self._render(variables, budget)
        finally:
            _garbage.add(budget.made_bytes)

    def _render(self, variables: Mapping[str, Any], budget: Budget) -> str:
        if self._changes_lists:
            variables = copied(dict(variables))
        # The template's `generate` does the same, but creates and copies the globals each time.
        context = MeteredContext(self._environment, {**self._globals, **variables}, None, self._template.blocks)
        context.budget = budget
        pieces, size, checked = [], 0, _CHECKED
        for piece in self._template.root_render_func(context):
            size += len(piece)
            if size > checked:
                budget.ensure(size)
                checked = 2 * size
            pieces.append(piece)
        return budget.concat(pieces)


@lru_cache(maxsize=64)
def _compile(source: str) -> tuple[Template, frozenset[str]]:
    """Compile a template. Returns it with the names of the variables that it reads. Raises SettingsError."""
    if len(source) > MAX_SOURCE:
        raise SettingsError(f"the chat template has {len(source)} characters, more than {MAX_SOURCE}")
    environment, _ = environment_of(source)
    try:
        tree = environment.parse(source)
        _check_size(tree)
        generator = MeteredCodeGenerator(environment, None, None)
        generator.visit(tree)
        code = compile(generator.code, "<chat template>", "exec")
        template = Template.from_code(environment, code, environment.make_globals(None))
    except SettingsError:
        raise
    except Exception as error:  # Jinja and Python raise any for code that is nested too deep, or for large numbers
        line = f" (line {lineno})" if (lineno := getattr(error, "lineno", None)) else ""
        raise SettingsError(f"the chat template does not compile{line}: {error}") from error
    return template, frozenset(generator.undeclared)


def _check_size(tree: nodes.Template) -> None:
    """Raise SettingsError for a template that would take long to compile."""
    size = sum(1 for _ in tree.find_all(nodes.Node))
    names = len({node.name for node in tree.find_all(nodes.Name)})
    # Jinja copies the table of all names for each branch.
    branches = sum(1 for _ in tree.find_all((nodes.If, nodes.CondExpr)))
    if size > _MAX_NODES or branches * names > _MAX_COPIES:
        raise SettingsError("the chat template is too complex")
