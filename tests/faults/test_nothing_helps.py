"""Failures of all nodes: the client gets an honest error in time, on a connection that can be used again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.faults import lab, programs
from tests.faults.asking import Question, ask_over, connect
from tests.faults.cases import Case
from tests.faults.conftest import Record
from tests.faults.dying import killed
from tests.processes import until

SHORT = (*programs.QUICK, "--max-attempts", "2")


@pytest.fixture(scope="module")
def shaky() -> Iterator[lab.Pool]:
    """Run two nodes, and a gateway with short timeouts."""
    with lab.pool(programs.PACED, programs.PACED, flags=SHORT) as pool:
        yield pool


@pytest.fixture
def pool(shaky: lab.Pool) -> Iterator[lab.Pool]:
    yield shaky
    shaky.heal()


@pytest.mark.parametrize("stream", [True, False])
def test_all_are_dead(stream: bool, pool: lab.Pool, record_property: Record) -> None:
    """If all nodes are dead, a request gets a 503 with Retry-After."""
    record_property("cell", ("all dead before a first byte", "with a seed" if stream else "not streamed", "503"))
    for node in pool.nodes:
        node.end()
    until(lambda: all(row["fault"] for row in pool.gateway.table))
    refused(pool, Question(stream=stream))


@pytest.mark.parametrize("stream", [True, False])
def test_all_die_before_the_first_token(stream: bool, pool: lab.Pool) -> None:
    """If all nodes die after they accepted the request, it is suspected of that: it gets a 500, now and later."""
    pool.trap.set((0, killed), (0, killed))
    question = Question(prompt=f"die, streamed: {stream}", stream=stream)
    with closing(connect(pool.gateway.url)) as connection:
        assert ask_over(connection, question).status == 500
        assert pool.trap.sprung == 2
        pool.mend()
        assert ask_over(connection, Question(prompt="another", stream=stream)).status == 200
    refused(pool, question, status=500)


def test_all_die_in_the_middle_of_a_whole_answer(pool: lab.Pool) -> None:
    """If all nodes die in the middle of an answer that is not streamed, it gets a 503 without partial text."""
    pool.trap.set((9, killed), (0, killed))
    refused(pool, Question(prompt="die in the middle", stream=False))
    assert pool.trap.sprung == 2


def refused(pool: lab.Pool, question: Question, status: int = 503) -> None:
    with closing(connect(pool.gateway.url)) as connection:
        for _ in range(2):
            answer = ask_over(connection, question)
            assert answer.status == status
            assert status == 500 or int(answer.headers["retry-after"]) >= 1
            (error,) = answer.errors
            assert error.keys() == {"message", "type", "param", "code"}
            assert error["type"] == "server_error"
            assert "127.0.0.1" not in error["message"]


def test_all_die_in_the_middle(pool: lab.Pool, undisturbed: dict[str, Case], record_property: Record) -> None:
    """If all nodes die during a stream, it ends with one error event after the text so far, without [DONE]."""
    record_property("cell", ("all dead in the middle", "with a seed", "error event, no [DONE]"))
    case = undisturbed["with a seed"]
    with closing(connect(pool.gateway.url)) as connection:
        pool.trap.set((9, killed), (0, killed))
        answer = ask_over(connection, case.question)
        assert answer.status == 200
        assert [list(event) for event in answer.events if "error" in event] == [["error"]]
        assert "error" in answer.events[-1]
        assert answer.reasons == []
        text = "".join(answer.texts)
        assert text
        assert case.undisturbed.choices[0].text.startswith(text)
        pool.mend()
        assert case.same(ask_over(connection, case.question))
