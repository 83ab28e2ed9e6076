"""An argparse parser that suggests the flag somebody meant, and adds its flags only when it is used."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from subnet.config.check import suggestion


class Parser(argparse.ArgumentParser):
    """`fill` adds the flags of one command when that command is parsed, so that the help of another, or the list of
    commands, imports nothing that those flags need. Flags cannot be abbreviated."""

    fill: Callable[[Parser], None] | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        if self.fill is not None:
            self.fill(self)
            self.fill = None
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unknown option {unknown[0]}{suggestion(unknown[0].partition('=')[0], self._flags())}")
        return options, unknown

    def error(self, message: str) -> NoReturn:
        """Ends the process with one line instead of argparse's full usage, which here has forty flags."""
        self.exit(2, f"{self.prog}: {message}\nrun `{self.prog} --help` for all options\n")

    def _flags(self) -> Sequence[str]:
        return re.findall(r"--[a-z][a-z-]*", self.format_usage())
