"""Description of a setting: its names in files, environment and command line, its type and its help text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_type_hints

import msgspec
from msgspec import inspect

from subnet.config.check import accepts_pairs, expected, plain_type

_KINDS: dict[type[inspect.Type], str] = {
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.BoolType: "true or false",
    inspect.VarTupleType: "list",
    inspect.DictType: "map",
}


class Field(msgspec.Struct, frozen=True):
    """One setting, made from a field of a settings Struct.

    `kind` is the type in words: "integer", "number", "text", "true or false", "list", "map" or "tables". A "map" is
    written as NAME=VALUE outside of files; "tables" map names to tables and can only be set in files. `placeholder`
    replaces the metavar derived from the type: Meta(extra={"metavar": ...}).
    """

    name: str
    type: Any
    default: Any
    help: str
    variable: str
    info: inspect.Type
    kind: str
    placeholder: str = ""

    @property
    def repeatable(self) -> bool:
        """True if the flag may be repeated."""
        return self.kind in ("list", "map")

    @property
    def flag(self) -> str | None:
        """Name of the flag, singular if it may be repeated: --node A --node B. None if there is no flag."""
        if self.kind == "tables":
            return None
        name = self.name
        if self.repeatable:
            name = name.removesuffix("es") if name.endswith("ses") else name.removesuffix("s")
        return "--" + name.replace("_", "-")

    @property
    def metavar(self) -> str:
        """Placeholder for one value in the help."""
        if self.placeholder:
            return self.placeholder
        if isinstance(self.info, inspect.DictType):
            has_lists = isinstance(plain_type(self.info.value_type), inspect.VarTupleType)
            return "NAME=VALUE,..." if has_lists else "NAME=VALUE"
        choices = expected(self.info).removeprefix("one of ") if isinstance(self.info, inspect.LiteralType) else ""
        return choices.replace(", ", "|") or self.kind.replace(" ", "-").upper()

    @property
    def values(self) -> str:
        """Type or choices, for the table of settings."""
        items = plain_type(self.info.item_type) if isinstance(self.info, inspect.VarTupleType) else self.info
        if not isinstance(items, inspect.LiteralType):
            return self.kind
        choices = ", ".join(f"`{choice}`" for choice in items.values)
        return choices if items is self.info else f"list of {choices}"

    @property
    def default_text(self) -> str:
        """Default as text; "" if it is None or empty."""
        if self.default in (None, (), {}):
            return ""
        return str(self.default).lower() if isinstance(self.default, bool) else f"{self.default}"


def fields(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[Field]:
    """Yield a Field for every field of `struct`; the names of environment variables start with `prefix`."""
    hints = get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        hint = hints[field.name]
        info = plain_type(inspect.type_info(hint))
        meta = hint.__metadata__[-1]
        yield Field(
            name=field.name,
            type=hint,
            default=field.default if field.default is not msgspec.NODEFAULT else {},
            help=meta.description,
            variable=prefix + field.name.upper(),
            info=info,
            kind=_kind(info),
            placeholder=(meta.extra or {}).get("metavar", ""),
        )


def _kind(info: inspect.Type) -> str:
    if isinstance(info, inspect.DictType) and not accepts_pairs(info):
        return "tables"
    return _KINDS.get(type(info), "text")
