"""Compiled Jinja templates, rendered with limits."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from time import thread_time
from typing import Any

from jinja2 import Template, TemplateError, meta
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context

from adapter.prompt.sandbox import MAX_RENDERED, copied, environment_of
from subnet.errors import SettingsError


class JinjaTemplate:
    """Template of a model. `variables` are the names that it reads."""

    def __init__(self, source: str, bos_token: str = "", eos_token: str = "") -> None:
        """Compile the template. Raises SettingsError if it does not compile."""
        self._template, self.variables = _compile(source)
        self._environment, self._changes_lists = environment_of(source)
        self._globals = {**self._template.globals, "bos_token": bos_token, "eos_token": eos_token}

    def render(self, variables: Mapping[str, Any], deadline: float | None = None) -> str:
        """Return the rendered text. Raises whatever the template raises, and SecurityError if the text is too long, or
        if this thread's CPU time passes `deadline`, which is checked whenever the template writes something.
        """
        if self._changes_lists:
            variables = copied(dict(variables))
        # The template's `generate` does the same, but creates and copies the globals each time.
        context = Context(self._environment, {**self._globals, **variables}, None, self._template.blocks)
        pieces, size = [], 0
        for piece in self._template.root_render_func(context):
            size += len(piece)
            if size > MAX_RENDERED:
                raise SecurityError(f"the rendered prompt exceeds {MAX_RENDERED} characters")
            if deadline is not None and thread_time() > deadline:
                raise SecurityError("rendering takes too long")
            pieces.append(piece)
        return "".join(pieces)


@lru_cache(maxsize=64)
def _compile(source: str) -> tuple[Template, frozenset[str]]:
    """Compile a template. Returns it with the names of the variables that it reads. Raises SettingsError."""
    try:
        environment, _ = environment_of(source)
        variables = meta.find_undeclared_variables(environment.parse(source))
        return environment.from_string(source), frozenset(variables)
    except (TemplateError, RecursionError) as error:
        line = f" (line {lineno})" if (lineno := getattr(error, "lineno", None)) else ""
        raise SettingsError(f"the chat template does not compile{line}: {error}") from error
