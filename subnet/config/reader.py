"""Settings from a TOML file, the environment and flags, in order of increasing precedence, as a frozen Struct.

The Struct is the only definition: validation, the flags' help and the generated reference come from it. Every field is
`name: Annotated[type, Meta(description=...)] = default`.

We considered pydantic-settings and cyclopts. Neither names the file, variable or flag that a wrong value came from,
both ignore unknown environment variables, and pydantic costs every gateway process 10 MB of memory; msgspec is a
dependency anyway. The command line itself is parsed by argparse.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from subnet.config.check import Checker, expected
from subnet.config.cli_parser import Parser
from subnet.config.fields import Field, fields
from subnet.errors import SettingsError

S = TypeVar("S", bound=msgspec.Struct)
# Name, value, and origin for error messages: "adapter.toml: port", "ADAPTER_PORT", "--port".
_Value = tuple[str, object, str]
# Kubernetes adds these to the environment of a pod for a service called "adapter" or "subnet".
_SERVICE_LINKS = ("SERVICE_", "PORT_")
_AT = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class SettingsReader(Generic[S]):
    """Reads a `struct` from `file` (if it exists), from environment variables that start with `prefix`, and
    from flags.
    """

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
        """Return the settings.

        `config` is the path of a TOML file that must exist; by default the default file is read if it exists. `flags`
        are the values of flags by the name of the setting; None means not given. Empty environment variables are
        ignored. Outside a file, lists are separated by commas, and maps are written as NAME=VALUE, separated by commas.

        Raises SettingsError with one line per mistake, each with the file, variable or flag, and the path within it.
        """
        variable = self._prefix + "CONFIG"
        origin = "" if config else f" (from {variable})"
        config = config or environ.get(variable) or None
        given = [*self._from_file(config, origin), *self._from_environment(environ), *self._from_flags(flags or {})]
        table = {field.name: field for field in self.fields}
        checker = Checker()
        values: dict[str, Any] = {}
        for name, value, place in given:
            if name in table:
                values[name] = _read(checker, table[name], value, place)
            else:
                self._unknown(checker, name, place)
        if checker.problems:
            raise SettingsError("\n".join(checker.problems))
        return msgspec.convert(values, self._struct)

    def add_flags(self, parser: Parser, *names: str) -> None:
        """Add a flag for each of `names`, or for all settings; the value of a flag that is not given is None."""
        parser.add_argument(
            "--config", metavar="FILE", help=f"TOML file to read (default: ./{self._file}, if it exists)"
        )
        for field in self.fields:
            if field.flag is None or (names and field.name not in names):
                continue
            text = f"{field.help}{' (may be repeated)' if field.repeatable else ''}"
            # `--strict` is `--strict true`.
            switch: dict[str, Any] = {"nargs": "?", "const": "true"} if field.kind == "true or false" else {}
            parser.add_argument(
                field.flag,
                dest=field.name,
                metavar=field.metavar,
                action="append" if field.repeatable else "store",
                **switch,
                help=f"{text}{f' (default: {field.default_text})' if field.default_text else ''}".replace("%", "%%"),
            )
            parser.expected[field.flag] = _expected(field)

    def table(self) -> str:
        """Return the settings as a Markdown table."""
        rows = ["| setting | environment variable, flag | type | default | meaning |", "|---|---|---|---|---|"]
        for field in self.fields:
            names = "" if field.flag is None else f"`{field.variable}`, `{field.flag}`"
            rows.append(f"| `{field.name}` | {names} | {field.values} | {_code(field.default_text)} | {field.help} |")
        return "\n".join(rows) + "\n"

    def _unknown(self, checker: Checker, name: str, place: str) -> None:
        if place == self._prefix + name.upper():
            names = [field.name.upper() for field in self.fields if field.flag]
            checker.unknown(place, name, names, self._prefix)
        else:
            checker.unknown(place, name, [field.name for field in self.fields])

    def _from_file(self, config: str | None, origin: str) -> Iterator[_Value]:
        path = Path(config or self._file)
        if config is None and not path.is_file():
            return
        try:
            found = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise SettingsError(f"{path}: cannot be read: {error.strerror}{origin if config else ''}") from error
        except UnicodeDecodeError as error:
            raise SettingsError(f"{path}: not UTF-8: {error}") from error
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{path}:{_line(path, str(error))}: invalid TOML: {_AT.sub('', str(error))}") from error
        for name, value in found.items():
            yield name, value, f"{path}: {name}"

    def _from_environment(self, environ: Mapping[str, str]) -> Iterator[_Value]:
        for variable, value in environ.items():
            name = variable.removeprefix(self._prefix)
            link = name.startswith(_SERVICE_LINKS) or (name == "PORT" and value.startswith("tcp://"))
            if value.strip() and name not in (variable, "CONFIG") and not link:
                yield name.lower(), value, variable

    def _from_flags(self, flags: Mapping[str, object]) -> Iterator[_Value]:
        flag_names = {field.name: field.flag for field in self.fields}
        for name, value in flags.items():
            if value is not None:
                yield name, value, flag_names.get(name) or name


def _line(path: Path, problem: str) -> int:
    """Return the line number in an error of tomllib; the last line if the file ends too soon."""
    found = _AT.search(problem)
    return int(found[1]) if found and found[1] else len(path.read_text("utf-8").splitlines())


def struct_table(struct: type[msgspec.Struct]) -> str:
    """Return the keys of a table in a settings file as a Markdown table."""
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    rows += [f"| `{one.name}` | {one.values} | {_code(one.default_text)} | {one.help} |" for one in fields(struct)]
    return "\n".join(rows) + "\n"


def _read(checker: Checker, field: Field, value: object, place: str) -> object:
    if field.kind == "tables" and isinstance(value, str):
        checker.problems.append(f"{place}: can only be set in a file, as tables")
        return None
    return checker.read(field.info, value, place)


def _expected(field: Field) -> str:
    """Return a description of the flag's value."""
    return field.metavar if field.repeatable else expected(field.info)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""
