"""One setting: its names, its type, and how what was given becomes a value of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_type_hints

import msgspec

from subnet.errors import SettingsError

_TYPES = {
    "int": "integer",
    "float": "number",
    "str": "text",
    "bool": "true or false",
    "array": "list",
    "object": "table",
}
_KINDS = {"string": "text", "array": "list", "boolean": "true or false", "object": "table"}


_PLACE = re.compile(r" - at (?:`key` in )?`\$(.*)`$")


class Text(str):
    """A value that comes as text whatever its type: "8000", "true", "a,b"."""


class Field(msgspec.Struct, frozen=True):
    """One setting. `kind` is one word, like "integer"; `variable` names it in the environment.

    A "list" has items; where these are Structs with a method `written`, an item may also be a text, of which that makes
    the fields. A "table" has values by name, texts or lists of texts. "tables" are tables by name, and stand only in a
    file.
    """

    name: str
    type: Any
    default: Any
    help: str
    kind: str
    variable: str
    choices: tuple[str, ...] = ()

    @property
    def flag(self) -> str | None:
        """One item of a list or of a table each time: --node A --node B."""
        if self.kind == "tables":
            return None
        name = self.name
        if self.kind in ("list", "table"):
            name = name.removesuffix("es") if name.endswith("ses") else name.removesuffix("s")
        return "--" + name.replace("_", "-")

    @property
    def metavar(self) -> str:
        """What one value looks like."""
        if self.kind == "table":
            return "NAME=VALUE,..." if self._many else "NAME=VALUE"
        return "|".join(self.choices) or self.kind.replace(" ", "-").upper()

    @property
    def shown(self) -> str:
        """The default as a person writes it; "" for none."""
        if self.default in (None, (), {}):
            return ""
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default)

    def value(self, given: object, place: str) -> object:
        """What was `given` at `place`, as a value of the type. Raises SettingsError, one line."""
        strict = not isinstance(given, Text)
        if isinstance(given, Text):
            given = _parts(given) if self.kind in ("list", "table") else str(given)
        if self.kind == "tables" and not strict:
            raise SettingsError(f"{place}: these are tables, which only a file can hold")
        if isinstance(given, list):
            given = self._table(given, place) if self.kind == "table" else [self._item(item) for item in given]
        try:
            return msgspec.convert(given, self.type, strict=strict)
        except msgspec.ValidationError as error:
            raise SettingsError(place + self._plain(str(error))) from error

    @property
    def _many(self) -> bool:
        return _values(self.type).get("type") == "array"

    def _item(self, item: object) -> object:
        written = getattr(get_args(get_args(self.type)[0])[0], "written", None)
        return written(item) if written is not None and isinstance(item, str) else item

    def _table(self, items: Sequence[object], place: str) -> Mapping[str, object]:
        """Of "a=b" and "c=d". Where values are lists, what has no name belongs to the last one: "a=b,c"."""
        found: dict[str, list[str]] = {}
        for part in (part for item in items for part in _parts(str(item))):
            name, mark, value = part.partition("=")
            if mark:
                found[name.strip()] = [value.strip()]
            elif found and self._many:
                found[next(reversed(found))].append(part)
            else:
                raise SettingsError(f"{place}: expected {self.metavar}, got {part}")
        return found if self._many else {name: value for name, (value,) in found.items()}

    def _plain(self, text: str) -> str:
        problem, path, *_ = [*_PLACE.split(text), ""]
        if unknown := re.fullmatch("Object contains unknown field `(.*)`", problem):
            return f"{path}.{unknown[1]}: there is no such setting"
        choices = self.choices or (_choices(self.type, path) if problem.startswith("Invalid enum value") else ())
        return f"{path}: " + ("expected one of " + ", ".join(choices) if choices else _plain(problem))


def fields(struct: type[msgspec.Struct], prefix: str) -> Iterator[Field]:
    """Every field of `struct` as a setting, whose variable starts with `prefix`."""
    hints = get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        hint = hints[field.name]
        yield Field(
            name=field.name,
            type=hint,
            default=field.default if field.default is not msgspec.NODEFAULT else {},
            help=hint.__metadata__[-1].description,
            kind=_kind(hint),
            variable=prefix + field.name.upper(),
            choices=_enum(msgspec.json.schema(hint)),
        )


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _plain(problem: str) -> str:
    problem = problem.replace("`", "").replace(" | null", "")
    for theirs, ours in _TYPES.items():
        problem = re.sub(rf"\b(Expected|got) {theirs}\b", rf"\1 {ours}", problem)
    return problem[0].lower() + problem[1:]


def _values(hint: Any) -> Mapping[str, Any]:
    """The schema of a table's values."""
    found = msgspec.json.schema(hint).get("additionalProperties", {})
    return found if isinstance(found, Mapping) else {}


def _enum(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """The values that are allowed, of it or of its items, if only these are."""
    some = (schema, *schema.get("anyOf", ()))
    found = (one["enum"] for one in (*some, *(one.get("items", {}) for one in some)) if "enum" in one)
    return tuple(next(found, ()))


def _choices(hint: Any, path: str) -> tuple[str, ...]:
    """Of the field, of a Struct within `hint`, that `path` ends with."""
    name = path.rpartition(".")[2].partition("[")[0]
    structs = msgspec.json.schema(hint).get("$defs", {}).values()
    return next((_enum(one["properties"][name]) for one in structs if name in one.get("properties", {})), ())


def _kind(hint: Any) -> str:
    schema = msgspec.json.schema(hint)
    if "$ref" in _values(hint):
        return "tables"
    kinds = [one.get("type") or "text" for one in schema.get("anyOf", (schema,))]
    return next(_KINDS.get(kind, kind) for kind in kinds if kind != "null")
