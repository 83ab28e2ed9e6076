"""The `adapter` command: its flags and its help."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine, Sequence

import uvloop

from adapter import commands
from adapter.settings import Settings, reader
from subnet.errors import SettingsError, SubnetError
from subnet.version import VERSION

_MAIN = """\
An OpenAI-compatible chat API in front of a subnet of inference nodes.

  adapter up       a gateway and, on this machine, the nodes behind it
  adapter serve    a gateway alone, in front of nodes that run elsewhere
"""
_UP = """\
Run a gateway and local nodes, each in a process of its own; Ctrl-C ends them all.

examples:
  adapter up                                          two nodes with the small model that comes with the package
  adapter up --model ~/models/qwen.gguf --local-nodes 1
  adapter up --model owner/repo:file.gguf             fetched from the hub, once
  adapter up --node http://gpu-1:9000                 and one more node, on another machine
"""
_SERVE = """\
Run a gateway in front of nodes that run elsewhere (see: subnet node --help).

examples:
  adapter serve --node http://127.0.0.1:9000
  adapter serve --node http://gpu-1:9000 --node http://gpu-2:9000 --host 0.0.0.0
  ADAPTER_SECRET=... adapter serve --config gateway.toml
"""
_SETTINGS = "\nEvery setting can also stand in adapter.toml or in the environment (ADAPTER_PORT=8001); flags win.\n"
_ONLY_UP = {"model", "engine", "local_nodes", "concurrency", "context_length", "threads"}

Run = Callable[[Settings, commands.Report], Coroutine[None, None, None]]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    flags = {name: value for name, value in vars(options).items() if name not in ("run", "config")}
    try:
        settings = reader.load(options.config, flags=flags)
        logging.basicConfig(level=settings.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.root.level))
        if options.run is commands.up:
            settings = commands.with_model(settings, _say)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(options.run(settings, _say))
    except (SettingsError, SubnetError) as error:
        sys.exit(f"adapter: {error}")


def _say(line: str) -> None:
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="adapter", description=_MAIN, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=VERSION)
    subparsers = parser.add_subparsers(required=True, metavar="command")
    everywhere = [field.name for field in reader.fields if field.name not in _ONLY_UP]
    _command(subparsers, "up", "run a gateway and local nodes", _UP, commands.up, [*everywhere, *_ONLY_UP])
    _command(subparsers, "serve", "run a gateway alone", _SERVE, commands.serve, everywhere)
    return parser


def _command(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    description: str,
    run: Run,
    settings: Sequence[str],
) -> None:
    parser = subparsers.add_parser(
        name,
        help=summary,
        description=description + _SETTINGS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    reader.add_flags(parser, *settings)
    parser.set_defaults(run=run)
