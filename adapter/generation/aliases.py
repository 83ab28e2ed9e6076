"""Model aliases and fallbacks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from adapter.errors import AdapterError
from subnet.errors import SubnetError

MAX_NAME = 256
"""Maximum number of characters of a client's name for a model in a message."""


class Aliases(msgspec.Struct, frozen=True, kw_only=True):
    """Names of models. An alias may refer to a model or to another alias.

    `aliases` maps additional names to models. `fallbacks` maps a model, or an alias of it, to the models to try, in
    order, if it cannot answer; the fallbacks of a fallback follow directly after it. `default` is the model for
    unknown names that have no fallbacks; None for no such model.
    """

    aliases: Mapping[str, str] = {}
    fallbacks: Mapping[str, Sequence[str]] = {}
    default: str | None = None

    @property
    def models(self) -> frozenset[str]:
        """The models that the settings promise: what aliases, fallbacks and the default refer to."""
        fallbacks = (name for names in self.fallbacks.values() for name in names)
        names = {*self.aliases.values(), *self.fallbacks, *fallbacks, *([self.default] if self.default else [])}
        return frozenset(names.difference(self.aliases))

    def resolve(self, name: str, known: Collection[str]) -> str:
        """Return the model that `name` refers to. `known` are the existing models, for which `default` is not used."""
        model = self._resolve_alias(name)
        if self.default is not None and model == name and name not in known and name not in self.fallbacks:
            return self._resolve_alias(self.default)
        return model

    def candidates(self, name: str, known: Collection[str]) -> tuple[str, ...]:
        """Return the models to try for `name`, in order, each once: the model itself, then its fallbacks."""
        models: dict[str, None] = {}
        self._add_with_fallbacks(name, self.resolve(name, known), models)
        return tuple(models)

    def _add_with_fallbacks(self, name: str, model: str, models: dict[str, None]) -> None:
        if model in models:
            return
        models[model] = None
        for other in self.fallbacks.get(name) or self.fallbacks.get(model) or ():
            self._add_with_fallbacks(other, self._resolve_alias(other), models)

    def _resolve_alias(self, name: str) -> str:
        for _ in self.aliases:
            if name not in self.aliases:
                break
            name = self.aliases[name]
        return name


def name_as_requested(error: Exception, model: str, requested: str) -> None:
    """Put the name `requested`, which the client used, in place of `model`, which it refers to, in the message."""
    if model != requested and isinstance(error, AdapterError | SubnetError):
        error.message = error.message.replace(f"'{model}'", f"'{requested[:MAX_NAME]}'")
        error.args = (error.message,)
