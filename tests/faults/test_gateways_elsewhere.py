"""Gateways of our own as plain OpenAI-compatible servers behind another one, killed in the middle of a forced call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from tests.faults.answers import Answer
from tests.faults.asking import Question, ask
from tests.faults.features import feature, tool
from tests.faults.programs import Gateway, gateway, nodes
from tests.processes import free_port, until

NODE = ("subnet.cli", "node", "--threads", "1", "--context-length", "512")
# Long enough to be cut, and that no second draw gives the same by chance.
STORY = tool("tell", {"story": {"type": "string", "minLength": 40, "maxLength": 60}})
CALLING = feature("Tell me a story.", max_tokens=100, tools=[STORY], tool_choice="required", parallel_tool_calls=False)
QUESTIONS = {
    "greedy": msgspec.structs.replace(CALLING, temperature=0.0, seed=None),
    "unseeded": msgspec.structs.replace(CALLING, temperature=1.0, seed=None),
}


class Two:
    """Two gateways with a node each, and a gateway in front of them that takes them for servers of an unknown type."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._inner = [
            Gateway([node.address], ("--port", str(free_port()))) for node in stack.enter_context(nodes(NODE, NODE))
        ]
        for one in self._inner:
            one.start()
            stack.callback(one.end)
        config = folder / "adapter.toml"
        node = '[[nodes]]\nurl = "{}"\nkind = "openai"\nseeds = true\n'
        config.write_text("".join(node.format(one.wait()) for one in self._inner))
        self.outer: Gateway = stack.enter_context(gateway((), ("--config", str(config))))
        until(self._well)

    def _well(self) -> bool:
        return {row["state"] for row in self.outer.table} <= {"healthy", "breaker-half-open"}

    def ask(self, question: Question, kill_after: int | None = None) -> Answer:
        """Send a question; with `kill_after`, the gateway that answers is killed after this number of pieces."""

        def on_text(pieces: int) -> None:
            if pieces == kill_after:
                (busy,) = (row["peer"] for row in self.outer.table if row["requests"])
                next(one for one in self._inner if busy.startswith(one.url)).end()

        question = msgspec.structs.replace(question, model=str(self.outer.table[0]["model"]))
        return ask(self.outer.url, question, on_text)

    def mend(self) -> None:
        """Start a killed gateway again, and wait until it is used."""
        for one in self._inner:
            if one.process is not None and one.process.poll() is not None:
                one.start()
                one.wait()
        until(self._well)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    with ExitStack() as stack:
        yield Two(stack, tmp_path_factory.mktemp("config"))


@pytest.mark.parametrize("name", QUESTIONS)
def test_killed_in_a_forced_call(two: Two, name: str) -> None:
    """The call goes on at the other gateway where it was cut, after one switch: the same call, or a valid one."""
    question = QUESTIONS[name]
    whole, answer = two.ask(question), two.ask(question, kill_after=9)
    two.mend()
    for one in (whole, answer):
        assert one.complete, one.events
        (call,) = one.choices[0].calls.values()
        assert (call.name, one.reasons) == ("tell", ["tool_calls"])
        assert json.loads(call.arguments).keys() == {"story"}
    assert (whole.switched, answer.switched) == (0, 1)
    assert name == "unseeded" or answer.choices == whole.choices
