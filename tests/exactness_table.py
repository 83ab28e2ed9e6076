"""Measures, for several types of weights, whether answers are exact when nodes are killed in the middle of them.

    python -m tests.exactness_table
    python -m tests.exactness_table --long --models Gemma-3-270m    # with a window of 512 tokens

It prints the table in subnet/README.md. Each file is made of one of the two real models of the tests, and served by two
nodes. For each way of sampling, an undisturbed answer is compared with those of which the node was lost after a number
of tokens. A file whose answers differ although its nodes declare them exact is an error.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from subnet.engines.llama_cpp.exactness import exact_rows
from subnet.engines.llama_cpp.model import NativeModel
from subnet.models.resolve import resolve
from tests.faults import lab
from tests.faults.answers import Answer
from tests.faults.asking import Question, ask_over
from tests.faults.dying import connection_reset
from tests.faults.reviving import revived
from tests.processes import until
from tests.requantized import requantize
from tests.second_model import PACKAGE

MODELS = ("SmolLM2-135M", "Gemma-3-270m")
KINDS = ("Q4_0", "F16", "Q8_0", "Q5_K", "Q6_K")
_QUESTION = Question(path="/v1/completions", max_tokens=40, more={"ignore_eos": True})
ASKED = {
    "greedy": msgspec.structs.replace(_QUESTION, temperature=0.0, seed=None),
    "seeded": _QUESTION,
    "n = 2, logprobs": msgspec.structs.replace(_QUESTION, more={"ignore_eos": True, "n": 2, "logprobs": 3}),
}
CUTS = (1, 6, 29)
KILLED_AFTER = 18
SENTENCE = "The river was wide and slow, and the boats went by. "
SHORT, LONG = 16, 800
# Seconds: a node reads some hundred tokens of a prompt per second.
TIMEOUT = 900.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="a prompt of 10,000 tokens, for Gemma")
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS, help="types of weights")
    parser.add_argument("--models", nargs="*", default=MODELS, choices=MODELS, help="models to make files of")
    arguments = parser.parse_args()
    print(f"| file | rows | {' | '.join(ASKED)} |", f"|---|---|{'---|' * len(ASKED)}", sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            source = _source(model, Path(folder))
            for kind in arguments.kinds:
                path = Path(folder) / f"{model}-{kind}.gguf"
                requantize(source, path, kind)
                cells = [_rows(path), *_measure(path, arguments.long)]
                print(f"| {model} {kind} | {' | '.join(cells)} |", flush=True)
                path.unlink()


def _source(model: str, folder: Path) -> Path:
    if model == "SmolLM2-135M":
        return resolve(None, print)
    path = folder / "gemma.gguf"
    importlib.import_module(PACKAGE).assemble(path)
    return path


def _rows(path: Path) -> str:
    with closing(NativeModel(path)) as model:
        return str(exact_rows(model, 1, ""))


def _measure(path: Path, long: bool) -> Iterator[str]:
    """Yield a cell for each way of sampling: how many of the interrupted answers were the same."""
    context, prompt = ("16384", SENTENCE * LONG) if long else ("512", SENTENCE * SHORT)
    node = ("subnet.cli", "node", "--model", str(path), "--threads", "1", "--context-length", context)
    flags = ("--failover-timeout", str(TIMEOUT)) if long else ()
    with lab.pool(node, node, flags=flags, one_by_one=True) as pool:
        for asked in ASKED.values():
            yield _same(pool, msgspec.structs.replace(asked, model=pool.model, prompt=prompt))


def _same(pool: lab.Pool, asked: Question) -> str:
    undisturbed = _ask(pool, asked)
    same = 0
    with revived(pool) as kill:
        cuts = [(KILLED_AFTER, kill), *((after, connection_reset) for after in CUTS)]
        for cut in cuts:
            pool.trap.set(cut)
            answer = _ask(pool, asked)
            until(lambda: pool.trap.sprung == 1)
            same += answer.choices == undisturbed.choices
    return f"{same} of {len(cuts)}"


def _ask(pool: lab.Pool, asked: Question) -> Answer:
    address = urlsplit(pool.gateway.url).netloc
    with closing(HTTPConnection(address, timeout=TIMEOUT)) as connection:
        answer = ask_over(connection, asked)
    assert answer.complete, answer.events[-1:]
    return answer


if __name__ == "__main__":
    main()
