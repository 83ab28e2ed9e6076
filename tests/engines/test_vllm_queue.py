"""More requests at once than vLLM generates at once: it queues them, and so they are all served."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from subnet.node_info import Lane
from tests.engines.conftest import Servers
from tests.faults.asking import Question

REQUESTS = 40
"""Many times what vLLM generates at once."""
QUESTION = Question(prompt="Count.", max_tokens=32, seed=None, more={"ignore_eos": True})


def test_a_queue(servers: Servers, lane: Lane) -> None:
    """Every request is answered by the server that got it first, however long it waits in the queue."""
    served = [server.metric("vllm:request_success_total") for server in servers.servers]
    with ThreadPoolExecutor(REQUESTS) as pool:
        answers = list(pool.map(lambda _: servers.ask(lane, QUESTION), range(REQUESTS)))
    assert all(answer.complete for answer in answers), [answer.errors for answer in answers if not answer.complete]
    assert {answer.usages[0]["completion_tokens"] for answer in answers} == {QUESTION.max_tokens}
    assert {answer.switched for answer in answers} == {0}
    now = [server.metric("vllm:request_success_total") for server in servers.servers]
    assert [after - before for after, before in zip(now, served, strict=True)] == [REQUESTS, 0]
