"""The `subnet` command. Imports are deferred until they are needed, so that help is printed without delay."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from subnet.config.cli_parser import Parser
from subnet.errors import SettingsError, SubnetError
from subnet.output import LogHandler, print_line
from subnet.version import VERSION

_NODE = """\
Run one node: load a model and serve it to gateways.

examples:
  subnet node                                        a small demo model, SmolLM2-135M-Instruct
  subnet node --model ~/models/qwen.gguf --port 9001
  subnet node --model owner/repo:file.gguf --host 0.0.0.0 --secret "$SECRET"
  subnet node --engine echo --echo-rate 50           no model at all, for tests

Then start a gateway in front of it: adapter serve --node http://this-host:9001
"""
_SETTINGS = "\nSettings also come from node.toml and the environment (SUBNET_PORT=9001); flags take precedence.\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command. Invalid settings, and a node that cannot start, exit with an error message."""
    options = build_parser().parse_args(arguments)
    try:
        _node(options)
    except SettingsError as error:
        sys.exit(error.report("subnet"))
    except SubnetError as error:
        sys.exit(f"subnet: {error}")


def _node(options: argparse.Namespace) -> None:
    import asyncio
    import logging

    from subnet import threads
    from subnet.log_format import LineFormatter
    from subnet.node.run import run
    from subnet.node.settings import reader

    flags = {name: value for name, value in vars(options).items() if name not in ("command", "config")}
    settings = reader.load(options.config, flags=flags)
    handler = LogHandler()
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    asyncio.run(run(settings, print_line))
    threads.exit_if_busy()


def build_parser() -> Parser:
    """Return the parser; the flags of a command are added when it is parsed."""
    parser = Parser(prog="subnet", description="A subnet of inference nodes.")
    parser.add_argument("--version", action="version", version=VERSION)
    node = parser.add_command("node", help="run one node", description=_NODE)
    node.epilog, node.fill = _SETTINGS, _flags
    return parser


def _flags(parser: Parser) -> None:
    from subnet.node.settings import reader

    reader.add_flags(parser)


if __name__ == "__main__":
    main()
