"""Runs one target, guided by coverage: `python -m tests.fuzz.guided TARGET [FLAGS OF LIBFUZZER] [CORPUS]`.

Needs atheris. The process ends with the run: with 0, or after the first failure with the input in a file.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["adapter", "subnet"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
