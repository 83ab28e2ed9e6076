"""Settings of a program: TOML file, then environment, then flags, read once into one frozen Struct. The later wins.

The Struct is the table that everything is made from: the type checks and ranges, the flags' help, and the table in
the README. Every field is `name: Annotated[type, Meta(description=...)] = default`.
"""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar, get_type_hints

import msgspec

from subnet.errors import SettingsError

S = TypeVar("S", bound=msgspec.Struct)


class Field(msgspec.Struct, frozen=True):
    """One setting. `kind` is one word, like "integer"; `variable` names it in the environment."""

    name: str
    type: Any
    default: Any
    help: str
    kind: str
    variable: str
    choices: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        # One value of a list each time: --node A --node B.
        name = self.name.removesuffix("s") if self.kind == "list" else self.name
        return "--" + name.replace("_", "-")


class SettingsReader(Generic[S]):
    """Reads a `struct` from `file` (if there is one), from variables that start with `prefix`, and from flags."""

    def __init__(self, struct: type[S], prefix: str, file: str) -> None:
        self._struct = struct
        self._prefix = prefix
        self._file = file
        self.fields = list(_fields(struct, prefix))

    def load(
        self,
        config: str | None = None,
        *,
        environ: Mapping[str, str] = os.environ,
        flags: Mapping[str, object] | None = None,
    ) -> S:
        """`config` names a TOML file that must exist; without it the usual file is read where there is one.

        `flags` holds what was given on the command line, by setting name; None means not given. A list is written
        with commas in the environment. Raises SettingsError, one line that says where the wrong setting is.
        """
        table = {field.name: field for field in self.fields}
        file = self._from_file(config or environ.get(self._prefix + "CONFIG"))
        values: dict[str, Any] = {}
        for name, value, place in (*file, *self._from_environment(environ), *_from_flags(flags or {})):
            if name not in table:
                raise SettingsError(f"{place}: there is no such setting")
            values[name] = _convert(value, table[name], place)
        return self._struct(**values)

    def add_flags(self, parser: argparse.ArgumentParser, *names: str) -> None:
        """A flag for each of `names`, or for all settings; what is not given stays None."""
        parser.add_argument("--config", metavar="FILE", help=f"TOML file to read (default: ./{self._file}, if there)")
        for field in self.fields:
            if names and field.name not in names:
                continue
            default = "" if field.default in (None, ()) else f" (default: {_plain_value(field.default)})"
            parser.add_argument(
                field.flag,
                dest=field.name,
                metavar="|".join(field.choices) or field.kind.replace(" ", "-").upper(),
                action="append" if field.kind == "list" else "store",
                help=f"{field.help}{default}".replace("%", "%%"),
            )

    def table(self) -> str:
        """The settings as a Markdown table."""
        rows = ["| setting | environment, flag | type | default | meaning |", "|---|---|---|---|---|"]
        for field in self.fields:
            names = f"`{field.variable}`, `{field.flag}`"
            shown = "" if field.default in (None, ()) else f"`{_plain_value(field.default)}`"
            rows.append(f"| `{field.name}` | {names} | {field.kind} | {shown} | {field.help} |")
        return "\n".join(rows) + "\n"

    def _from_file(self, config: str | None) -> Iterator[_Given]:
        path = Path(config or self._file)
        if config is None and not path.is_file():
            return
        try:
            found = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path}: not TOML: {error}") from error
        for name, value in found.items():
            yield name, value, f"{path}: {name}"

    def _from_environment(self, environ: Mapping[str, str]) -> Iterator[_Given]:
        for variable, value in environ.items():
            name = variable.removeprefix(self._prefix)
            if name not in (variable, "CONFIG") and not name.startswith(_SERVICE_LINKS):
                yield name.lower(), _Text(value), variable


_Given = tuple[str, object, str]
# What Kubernetes puts into the environment of a pod that sees a service called "adapter" or "subnet".
_SERVICE_LINKS = ("SERVICE_", "PORT_")


def _from_flags(flags: Mapping[str, object]) -> Iterator[_Given]:
    for name, value in flags.items():
        if value is not None:
            yield name, _Text(value) if isinstance(value, str) else value, "--" + name.replace("_", "-")


class _Text(str):
    """A value that comes as text whatever its type: "8000", "true", "a,b"."""


def _convert(value: object, field: Field, place: str) -> object:
    text = isinstance(value, _Text)
    if isinstance(value, _Text):
        value = [part.strip() for part in value.split(",") if part.strip()] if field.kind == "list" else str(value)
    try:
        return msgspec.convert(value, field.type, strict=not text)
    except msgspec.ValidationError as error:
        wanted = f"expected one of {', '.join(field.choices)}" if field.choices else _plain(error)
        raise SettingsError(f"{place}: {wanted}") from error


def _plain(error: msgspec.ValidationError) -> str:
    text = str(error).replace("`", "").replace(" | null", "").split(" - at ")[0]
    for theirs, ours in (("int", "integer"), ("float", "number"), ("str", "text"), ("bool", "true or false")):
        text = text.replace(f"Expected {theirs}", f"expected {ours}").replace(f"got {theirs}", f"got {ours}")
    return text[0].lower() + text[1:]


def _kind(schema: Mapping[str, Any]) -> str:
    kinds = [schema.get("type") or "text"] if "anyOf" not in schema else [one["type"] for one in schema["anyOf"]]
    names = {"string": "text", "array": "list", "boolean": "true or false"}
    return str(next(names.get(kind, kind) for kind in kinds if kind != "null"))


def _fields(struct: type[msgspec.Struct], prefix: str) -> Iterator[Field]:
    hints = get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        hint = hints[field.name]
        schema = msgspec.json.schema(hint)
        yield Field(
            name=field.name,
            type=hint,
            default=field.default,
            help=hint.__metadata__[-1].description,
            kind=_kind(schema),
            variable=prefix + field.name.upper(),
            choices=tuple(schema.get("enum", ())),
        )


def _plain_value(default: object) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)
