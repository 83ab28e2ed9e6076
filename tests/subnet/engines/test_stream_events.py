"""Events of servers of the token lane, and the keep-alives that they mean."""

from __future__ import annotations

from subnet.engines.remote.choice_output import ChoiceOutput
from subnet.engines.remote.stream_events import StreamEvent, stream_events
from subnet.generation import Delta, Sampling
from subnet.http.client import HttpClient
from subnet.http.node_spec import NodeSpec
from tests.provider import Provider, raw


async def test_comments_are_keep_alives_before_the_first_token() -> None:
    """A comment of the server keeps a waiting request alive; once there are tokens, it means nothing."""
    stream = raw(": waiting\n\n", ": waiting\n\n", 'data: {"object":"x"}\n\n', ": more\n\n", "data: [DONE]\n\n")
    deltas: list[Delta] = []
    output = ChoiceOutput(0, Sampling(), (), 8, deltas.append)
    async with Provider(routes={"/v1/completions": stream}) as provider:
        async with HttpClient(NodeSpec(url=provider.url)) as http:
            async for event in stream_events(http, "/v1/completions", {}, StreamEvent, output.keep_alive):
                assert event.object == "x"
                output.add([5])
    assert [delta.tokens for delta in deltas] == [[], [], [5]]


def test_the_first_delta_is_reported_once() -> None:
    """`on_first_delta` is called before the first delta with content, and neither for keep-alives nor again."""
    deltas: list[Delta] = []
    calls: list[int] = []
    output = ChoiceOutput(0, Sampling(), (), 8, deltas.append)
    output.on_first_delta = lambda: calls.append(len(deltas))
    output.keep_alive()
    output.add([5])
    output.add([6])
    assert calls == [1]
