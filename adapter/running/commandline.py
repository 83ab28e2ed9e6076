"""The `adapter` command: its flags and its help."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence

import uvloop

from adapter.running import commands, node_table
from adapter.running.gateway import set_up_logging
from adapter.running.kept import Report
from adapter.settings import Settings, reader
from subnet.errors import SettingsError, SubnetError
from subnet.version import VERSION

_MAIN = """\
An OpenAI-compatible chat API in front of a subnet of inference nodes.

  adapter up       a gateway and, on this machine, the nodes behind it
  adapter serve    a gateway alone, in front of nodes and servers that run elsewhere
  adapter nodes    how the nodes of a running gateway are, and why one is out
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
Run a gateway in front of nodes that run elsewhere: subnet nodes (see: subnet node --help), vLLM, SGLang, llama-server,
Ollama, TGI, LM Studio, and whatever else speaks OpenAI's API. It finds out which, and says so.

examples:
  adapter serve --node http://gpu-1:8000 --node http://localhost:11434/v1
  adapter serve --node vllm=http://gpu-1:8000 --alias gpt-4o-mini=Qwen/Qwen3-8B --host 0.0.0.0
  ADAPTER_SECRET=... adapter serve --config gateway.toml
"""
_NODES = """\
Print the live table of the nodes behind a running gateway, one line each.

  state     healthy, away, draining, full, or with a breaker that is open (left alone) or half-open (being tried)
  requests  running there now for this gateway
  slots     in use of those it has, as it last said

examples:
  adapter nodes
  adapter nodes --url http://gateway:8000 --json
"""
_SETTINGS = "\nEvery setting can also stand in adapter.toml or in the environment (ADAPTER_PORT=8001); flags win.\n"
_ONLY_UP = {"model", "engine", "local_nodes", "concurrency", "context_length", "threads"}

Run = Callable[[Settings, Report], Coroutine[None, None, None]]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    try:
        options.start(options)
    except (SettingsError, SubnetError) as error:
        sys.exit(f"adapter: {error}")


def _gateway(options: argparse.Namespace) -> None:
    flags = {name: value for name, value in vars(options).items() if name not in ("start", "run", "config")}
    settings = reader.load(options.config, flags=flags)
    set_up_logging(settings.log_level)
    if options.run is commands.up:
        settings = commands.with_model(settings, _say)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(options.run(settings, _say))


def _nodes(options: argparse.Namespace) -> None:
    data = node_table.fetch(options.url, options.api_key)
    table = node_table.read(options.url, data)
    _say(data.decode() if options.json else node_table.written(table))


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
    nodes = subparsers.add_parser(
        "nodes", help="how the nodes are", description=_NODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    nodes.add_argument("--url", default=node_table.URL, help="address of the gateway (default: %(default)s)")
    nodes.add_argument("--api-key", metavar="KEY", help="one of the gateway's keys, where it has any")
    nodes.add_argument("--json", action="store_true", help="as the gateway tells it, for a script")
    nodes.set_defaults(start=_nodes)
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
    parser.set_defaults(start=_gateway, run=run)
