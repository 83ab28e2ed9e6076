"""One setting: its names in a file, in the environment and on the command line, its type, and its help text."""

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
    """One field of a settings Struct.

    `kind` is one word, like "integer". A "list" has items. A "map" has values by name, written NAME=VALUE outside a
    file. "tables" are tables by name, and only a file can hold them. `placeholder` stands for a value in the help, if
    the kind says too little: Meta(extra={"metavar": ...}).
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
        """Whether the flag may be given several times."""
        return self.kind in ("list", "map")

    @property
    def flag(self) -> str | None:
        """The flag, in the singular where it may be given several times: --node A --node B."""
        if self.kind == "tables":
            return None
        name = self.name
        if self.repeatable:
            name = name.removesuffix("es") if name.endswith("ses") else name.removesuffix("s")
        return "--" + name.replace("_", "-")

    @property
    def metavar(self) -> str:
        """A placeholder for one value."""
        if self.placeholder:
            return self.placeholder
        if isinstance(self.info, inspect.DictType):
            many = isinstance(plain_type(self.info.value_type), inspect.VarTupleType)
            return "NAME=VALUE,..." if many else "NAME=VALUE"
        choices = expected(self.info).removeprefix("one of ") if isinstance(self.info, inspect.LiteralType) else ""
        return choices.replace(", ", "|") or self.kind.replace(" ", "-").upper()

    @property
    def values(self) -> str:
        """What it takes, for a table of settings: its kind, or the choices."""
        items = plain_type(self.info.item_type) if isinstance(self.info, inspect.VarTupleType) else self.info
        if not isinstance(items, inspect.LiteralType):
            return self.kind
        choices = ", ".join(f"`{choice}`" for choice in items.values)
        return choices if items is self.info else f"list of {choices}"

    @property
    def shown(self) -> str:
        """The default as a person writes it; "" for none."""
        if self.default in (None, (), {}):
            return ""
        return str(self.default).lower() if isinstance(self.default, bool) else f"{self.default}"


def fields(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[Field]:
    """Yields every field of `struct` as a setting whose environment variable starts with `prefix`."""
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
