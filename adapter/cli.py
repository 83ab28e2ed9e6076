"""The `adapter` command. Modules that a command needs are imported when it runs, so that help appears at once."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from subnet.config.cli_parser import Parser
from subnet.errors import SettingsError, SubnetError
from subnet.output import print_line
from subnet.version import VERSION

_UP = """\
Run a gateway and local nodes, each in a process of its own. Ctrl-C stops them all.

examples:
  adapter up                                          two nodes with a small demo model, SmolLM2-135M-Instruct
  adapter up --model ~/models/qwen.gguf --local-nodes 1
  adapter up --model owner/repo:file.gguf             downloaded from the Hugging Face hub, once
  adapter up --node http://gpu-1:9000                 and one more node, on another machine
"""
_SERVE = """\
Run a gateway in front of nodes that run elsewhere: subnet nodes (see `subnet node --help`), vLLM, SGLang, llama-server,
Ollama, TGI, LM Studio, or any server with an OpenAI-compatible API. The type of each server is detected and printed.

examples:
  adapter serve --node http://gpu-1:8000 --node http://localhost:11434/v1
  adapter serve --node vllm=http://gpu-1:8000 --alias gpt-4o-mini=Qwen/Qwen3-8B --host 0.0.0.0
  ADAPTER_SECRET=... adapter serve --config gateway.toml
"""
_NODES = """\
Print the nodes of a running gateway, one line each.

  state     healthy, unreachable, draining, full, breaker-open (no requests) or breaker-half-open (being tested)
  for       time in that state
  requests  requests of this gateway that run on the node
  slots     slots in use and in total, as of the last health check
  reason    why the node gets no requests

examples:
  adapter nodes
  adapter nodes --url http://gateway:8000 --json
"""
_SETTINGS = "\nSettings also come from adapter.toml and the environment (ADAPTER_PORT=8001); flags take precedence.\n"
_ONLY_UP = {"model", "tokenizer", "engine", "local_nodes", "concurrency", "context_length", "threads"}
_URL = "http://127.0.0.1:8000"


def main() -> None:
    """Run the command; Ctrl-C or SIGTERM at any moment ends it without a traceback."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run()
    except KeyboardInterrupt:
        sys.exit(130)


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command. Raises SystemExit with one line per mistake."""
    options = build_parser().parse_args(arguments)
    try:
        options.start(options)
    except SettingsError as error:
        sys.exit(error.report("adapter"))
    except SubnetError as error:
        sys.exit(f"adapter: {error}")


def _gateway(options: argparse.Namespace) -> None:
    from adapter.config import reader

    flags = {name: value for name, value in vars(options).items() if name not in ("start", "command", "config")}
    settings = reader.load(options.config, flags=flags)

    # Not earlier: these imports take a second, which would delay the error for a typo in a setting.
    import asyncio

    import uvloop

    from adapter.process import commands
    from adapter.process.gateway import set_up_logging
    from subnet import threads

    set_up_logging(settings.log_level)
    if options.command == "up":
        settings = commands.resolve_model(settings, print_line)
    serve = commands.up if options.command == "up" else commands.serve
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, print_line))
    threads.exit_if_busy()


def _nodes(options: argparse.Namespace) -> None:
    from adapter.process import nodes_command

    data = nodes_command.fetch(options.url, options.api_key)
    table = nodes_command.decode(options.url, data)
    # The reader of a pipe may have exited.
    with suppress(OSError):
        print(data.decode() if options.json else nodes_command.format_table(table), flush=True)


def build_parser() -> Parser:
    """Return the parser. The flags of a command are added when it is used."""
    parser = Parser(prog="adapter", description="An OpenAI-compatible chat API in front of inference nodes.")
    parser.add_argument("--version", action="version", version=VERSION)
    up = parser.add_command("up", help="run a gateway and the nodes behind it on this machine", description=_UP)
    up.epilog, up.fill = _SETTINGS, _up_flags
    up.set_defaults(start=_gateway)
    serve = parser.add_command(
        "serve", help="run a gateway in front of nodes and servers that run elsewhere", description=_SERVE
    )
    serve.epilog, serve.fill, serve.other_command_hint = _SETTINGS, _serve_flags, "serve takes --node URL"
    serve.set_defaults(start=_gateway)
    nodes = parser.add_command("nodes", help="print the nodes of a running gateway", description=_NODES)
    nodes.add_argument("--url", default=_URL, help="address of the gateway (default: %(default)s)")
    nodes.add_argument("--api-key", metavar="KEY", help="API key of the gateway, if it requires one")
    nodes.add_argument("--json", action="store_true", help="print the response of GET /nodes")
    nodes.set_defaults(start=_nodes)
    return parser


def _up_flags(parser: Parser) -> None:
    from adapter.config import reader

    reader.add_flags(parser)


def _serve_flags(parser: Parser) -> None:
    from adapter.config import reader

    reader.add_flags(parser, *(field.name for field in reader.fields if field.name not in _ONLY_UP))


if __name__ == "__main__":
    main()
