"""Parser for command lines, with one-line errors, suggestions, and flags that are added only when a command is used."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from subnet.config.check import suggestion

_NO_VALUE = re.compile(r"argument (--[a-z-]+): expected one argument")


class Parser(argparse.ArgumentParser):
    """Parser of a program or of one of its commands. Flags cannot be abbreviated.

    `fill` adds the flags of a command when that command is parsed, so that the help of another command, or the list of
    commands, does not import what those flags need. `expected` has a description of each flag's value, for the error
    for a missing value. `other_command_hint` is appended to the error for an option that belongs to another command.
    """

    fill: Callable[[Parser], None] | None = None
    other_command_hint = ""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)
        self.expected: dict[str, str] = {}
        self._commands: dict[str, Parser] = {}
        self._siblings: Mapping[str, Parser] = {}

    def add_command(self, name: str, **options: Any) -> Parser:
        """Add a command and return its parser."""
        if not self._commands:
            self._subcommands = self.add_subparsers(
                dest="command", required=True, metavar="command", parser_class=Parser
            )
        command: Parser = self._subcommands.add_parser(name, **options)
        self._commands[name] = command
        command._siblings = self._commands
        return command

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        args = sys.argv[1:] if args is None else args
        self._add_flags()
        name = next((word for word in args if not word.startswith("-")), None)
        if self._commands and name is not None and name not in self._commands:
            self.error(f"unknown command {name!r}{suggestion(name, self._commands)}")
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self._reject_option(unknown[0])
        return options, unknown

    def error(self, message: str) -> NoReturn:
        """Exit with a one-line error instead of argparse's usage, which would list forty flags."""
        missing = _NO_VALUE.fullmatch(message)
        if missing is not None and missing[1] in self.expected:
            message = f"{missing[1]}: expected {self.expected[missing[1]]}"
        self.exit(2, f"{self.prog}: {message}\nrun `{self.prog} --help` for all options\n")

    def _reject_option(self, word: str) -> NoReturn:
        flag = word.partition("=")[0]
        others = [other.prog for other in self._siblings.values() if other is not self and flag in other._flags()]
        if others:
            of = " and ".join(f"`{prog}`" for prog in others)
            self.error(f"{flag} is an option of {of}{self.other_command_hint and f'; {self.other_command_hint}'}")
        self.error(f"unknown option {word}{suggestion(flag, self._flags())}")

    def _flags(self) -> Sequence[str]:
        self._add_flags()
        return re.findall(r"--[a-z][a-z-]*", self.format_usage())

    def _add_flags(self) -> None:
        fill, self.fill = self.fill, None
        if fill is not None:
            fill(self)
