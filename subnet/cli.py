"""The `subnet` command."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress

from subnet.errors import SubnetError
from subnet.node.run import run
from subnet.node.settings import reader
from subnet.version import VERSION

_NODE = """\
Run one node: load a model and offer it to gateways over the subnet's wire.

examples:
  subnet node                                        the small model that comes with the package
  subnet node --model ~/models/qwen.gguf --port 9001
  subnet node --model owner/repo:file.gguf --host 0.0.0.0 --secret "$SECRET"
  subnet node --engine echo --echo-rate 50           no model at all, for tests

Every setting can also stand in node.toml or in the environment (SUBNET_PORT=9001).
Then tell a gateway of it: adapter serve --node http://this-host:9001
"""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    flags = {name: value for name, value in vars(options).items() if name not in ("command", "config")}
    try:
        settings = reader.load(options.config, flags=flags)
        logging.basicConfig(level=settings.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
        asyncio.run(run(settings, _say))
    except SubnetError as error:
        sys.exit(f"subnet: {error}")


def _say(line: str) -> None:
    # Whoever started the node may have stopped listening.
    with suppress(BrokenPipeError):
        print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="subnet", description="A subnet of inference nodes.")
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    node = commands.add_parser(
        "node", help="run one node", description=_NODE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_flags(node)
    return parser


if __name__ == "__main__":
    main()
