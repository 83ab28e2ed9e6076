"""Child process of fallback_engine.py: llama.cpp's own server, on a free port of loopback.

Run as a script, so that it depends on nothing but the wheel. Standard input has the options as one line of JSON; the
answer on standard output is one line of JSON with `url` or `error`. The process ends when standard input does.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import Any

import xllamacpp  # type: ignore[import-untyped]

_PR_SET_PDEATHSIG = 1


def start(options: dict[str, Any]) -> xllamacpp.Server:
    """Start a server, in threads of this process; it ends with the object."""
    params = xllamacpp.CommonParams()
    params.model.path = options["model"]
    params.port = 0
    params.api_keys = [options["api_key"]]
    params.n_parallel = options["slots"]
    params.n_ctx = options["slots"] * options["context_length"]
    # Otherwise it reduces the context if memory seems scarce.
    params.fit_params = False
    # Otherwise it keeps finished prompts, up to several gigabytes, beside those in the slots.
    params.cache_ram_mib = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options["threads"]
    params.ui = False
    params.verbosity = -1
    return xllamacpp.Server(params)


def main() -> None:
    # A signal to the process group or service is for the node, which drains first.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    # Loading does not release the GIL, so the end of standard input goes unnoticed meanwhile.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    line = sys.stdin.readline()
    if line:
        try:
            server = start(json.loads(line))
            answer = {"url": server.listening_address}
        except Exception as error:  # an older or newer wheel may lack any of the names above
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stdin.read()
    # Its threads have nothing to finish.
    os._exit(0)


if __name__ == "__main__":
    main()
