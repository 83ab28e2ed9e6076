"""The names that clients may use for models, and the models that stand in for one another."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec


class Aliases(msgspec.Struct, frozen=True, kw_only=True):
    """`aliases` say what is served under another name; `fallbacks` what is asked, in order, when a model cannot answer,
    by its name or by an alias, and then what these have; `default` is for clients that send a name of their own.
    """

    aliases: Mapping[str, str] = {}
    fallbacks: Mapping[str, Sequence[str]] = {}
    default: str | None = None

    def model(self, name: str, known: Collection[str]) -> str:
        """What `name` stands for, of the models that are `known`."""
        found = self._resolved(name)
        if self.default is not None and found == name and name not in known and name not in self.fallbacks:
            return self._resolved(self.default)
        return found

    def chain(self, name: str, known: Collection[str]) -> tuple[str, ...]:
        """The models to ask for `name`, in order, each once."""
        found: dict[str, None] = {}
        self._follow(name, self.model(name, known), found)
        return tuple(found)

    def _follow(self, name: str, model: str, found: dict[str, None]) -> None:
        if model in found:
            return
        found[model] = None
        for other in self.fallbacks.get(name) or self.fallbacks.get(model) or ():
            self._follow(other, self._resolved(other), found)

    def _resolved(self, name: str) -> str:
        for _ in self.aliases:
            if name not in self.aliases:
                break
            name = self.aliases[name]
        return name
