"""Fuzzes all targets, or those named: `python -m tests.fuzz --runs 1000000 frame events`.

With atheris each target runs in a process of its own, guided by coverage, with its corpus in build/fuzz. Without it,
hypothesis changes the examples, without guidance. Ends with 1 if a target failed; the input is in build/fuzz.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings

from tests.fuzz.inputs import examples, inputs, words
from tests.fuzz.targets import TARGETS

FOLDER = Path("build/fuzz")
# Inputs between two looks at the clock.
_BATCH = 200
# Of one input, in bytes; seconds that it may take; and memory of a process, in MiB.
_LIMITS = ("-max_len=1024", "-timeout=20", "-rss_limit_mb=2048")


def run_guided(name: str, runs: int, seconds: int) -> int | None:
    """Run a target with atheris for a number of inputs and of seconds (0: no limit). Return the number of inputs; None
    after a failure, which is printed.
    """
    corpus = FOLDER / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, example in enumerate(examples(name)):
        (corpus / f"example-{number}").write_bytes(example)
    dictionary = FOLDER / f"{name}.dict"
    entries = ["".join(map("\\x{:02x}".format, word)) for word in words(name)]
    dictionary.write_text("".join(f'"{entry}"\n' for entry in entries))
    flags = [f"-runs={runs}", f"-max_total_time={seconds}", f"-dict={dictionary}", f"-artifact_prefix={FOLDER}/{name}-"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.guided", name, *flags, *_LIMITS, str(corpus)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    counted = re.search(r"Done (\d+) ", done.stdout)
    if done.returncode or counted is None:
        print(done.stdout[-4000:])
        return None
    return int(counted[1])


def run_unguided(name: str, runs: int, seconds: int) -> int | None:
    """Do the same with hypothesis."""
    count, ends = 0, time.monotonic() + (seconds or float("inf"))
    target, given_inputs = TARGETS[name], inputs(name)
    while count < runs and time.monotonic() < ends:
        size = min(_BATCH, runs - count)

        @seed(count)
        @settings(max_examples=size, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(given_inputs)
        def check(data: bytes) -> None:
            target(data)

        try:
            check()
        except Exception as error:
            print(*getattr(error, "__notes__", ()), repr(error), sep="\n")
            return None
        count += size
    return count


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs for each target (default: 1000000)")
    parser.add_argument("--seconds", type=int, default=0, help="time for each target (default: no limit)")
    options = parser.parse_args()
    if unknown := set(options.targets) - TARGETS.keys():
        parser.error(f"unknown targets: {', '.join(sorted(unknown))}")
    run, failed = run_guided if find_spec("atheris") else run_unguided, []
    for name in options.targets or TARGETS:
        began = time.monotonic()
        count = run(name, options.runs, options.seconds)
        result = "failed" if count is None else f"{count} inputs"
        print(f"{name}: {result} in {time.monotonic() - began:.0f} s", flush=True)
        failed += [name] if count is None else []
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
