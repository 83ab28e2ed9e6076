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
from typing import Any, Generic, TypeVar

import msgspec

from subnet.errors import SettingsError
from subnet.fields import Text, fields

S = TypeVar("S", bound=msgspec.Struct)
_Given = tuple[str, object, str]
# What Kubernetes puts into the environment of a pod that sees a service called "adapter" or "subnet".
_SERVICE_LINKS = ("SERVICE_", "PORT_")


class SettingsReader(Generic[S]):
    """Reads a `struct` from `file` (if there is one), from variables that start with `prefix`, and from flags."""

    def __init__(self, struct: type[S], prefix: str, file: str) -> None:
        self._struct = struct
        self._prefix = prefix
        self._file = file
        self.fields = list(fields(struct, prefix))

    def load(
        self,
        config: str | None = None,
        *,
        environ: Mapping[str, str] = os.environ,
        flags: Mapping[str, object] | None = None,
    ) -> S:
        """`config` names a TOML file that must exist; without it the usual file is read where there is one.

        `flags` holds what was given on the command line, by setting name; None means not given. A list is written
        with commas in the environment, a table as NAME=VALUE with commas. Raises SettingsError, one line that says
        where the wrong setting is.
        """
        table = {field.name: field for field in self.fields}
        file = self._from_file(config or environ.get(self._prefix + "CONFIG"))
        values: dict[str, Any] = {}
        for name, value, place in (*file, *self._from_environment(environ), *self._from_flags(flags or {})):
            if name not in table:
                raise SettingsError(f"{place}: there is no such setting")
            values[name] = table[name].value(value, place)
        return self._struct(**values)

    def add_flags(self, parser: argparse.ArgumentParser, *names: str) -> None:
        """A flag for each of `names`, or for all settings; what is not given stays None."""
        parser.add_argument("--config", metavar="FILE", help=f"TOML file to read (default: ./{self._file}, if there)")
        for field in self.fields:
            if field.flag is None or (names and field.name not in names):
                continue
            parser.add_argument(
                field.flag,
                dest=field.name,
                metavar=field.metavar,
                action="append" if field.kind in ("list", "table") else "store",
                help=f"{field.help}{f' (default: {field.shown})' if field.shown else ''}".replace("%", "%%"),
            )

    def table(self) -> str:
        """The settings as a Markdown table."""
        rows = ["| setting | environment, flag | type | default | meaning |", "|---|---|---|---|---|"]
        for field in self.fields:
            names = "" if field.flag is None else f"`{field.variable}`, `{field.flag}`"
            shown = field.shown and f"`{field.shown}`"
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
                yield name.lower(), Text(value), variable

    def _from_flags(self, flags: Mapping[str, object]) -> Iterator[_Given]:
        written = {field.name: field.flag for field in self.fields}
        for name, value in flags.items():
            if value is not None:
                yield name, Text(value) if isinstance(value, str) else value, written.get(name) or name
