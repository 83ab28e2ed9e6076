"""The parsers with the expectations of vLLM's tests, which run with them; see vllm_plugin.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from functools import cache

from tests.layers import ROOT
from tests.vectors.known_differences import VLLM, VLLM_ONLY, check, is_listed
from tests.vectors.set_up import FOLDER

# These test other things of vLLM than parsers.
_LEFT_OUT = ("tests/tool_parsers/test_utils.py", "tests/tool_parsers/test_structural_tag_registry.py")


@cache
def outcomes() -> Mapping[str, str]:
    """Run vLLM's tests in a process of their own, and return the outcome of each."""
    file = FOLDER / "outcomes.json"
    file.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-c",
        os.devnull,
        "--rootdir",
        ".",
        "-p",
        "tests.vectors.vllm_plugin",
    ]
    command += ["-p", "no:cacheprovider", "--continue-on-collection-errors", "tests/tool_parsers", "tests/reasoning"]
    done = subprocess.run(
        [*command, *(f"--ignore={path}" for path in _LEFT_OUT)],
        cwd=FOLDER / "vllm",
        env={**os.environ, "PYTHONPATH": str(ROOT), "VLLM_OUTCOMES": str(file)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
    )
    assert file.exists(), done.stdout[-2000:]
    found: dict[str, str] = json.loads(file.read_text())
    return found


def test_expectations() -> None:
    """At least 95 % of the expectations that apply are met, and the others are listed."""
    applying = {name: outcome for name, outcome in outcomes().items() if not is_listed(name, VLLM_ONLY)}
    counts = Counter(outcome.partition(":")[0] for outcome in applying.values())
    failed = {name: outcome for name, outcome in applying.items() if outcome.startswith("failed")}
    for name, outcome in failed.items():
        print(f"{name}\n  {outcome[:300]}")
    applicable = counts["met"] + counts["failed"]
    print(
        f"{counts['met']} of {applicable} expectations of vLLM that apply are met; others: {counts['not applicable']}"
    )
    assert applicable > 700
    assert counts["met"] >= 0.95 * applicable
    check(failed, VLLM)
