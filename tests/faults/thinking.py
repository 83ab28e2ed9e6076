"""Echo node that also plays a script of reasoning, text and tool calls on request: `python -m
tests.faults.thinking`.
"""

from __future__ import annotations

import asyncio

import msgspec

from subnet.aio import Sink
from subnet.engines.echo import PIECES, EchoOptions
from subnet.engines.echo.echo_vocabulary import END
from subnet.errors import InvalidRequest
from subnet.generation import Delta, Job, Start, TokenLogprobs
from subnet.node_info import TokenizerArtefact, digest
from tests.faults.breakable import Breakable, serve

RATE = 200.0
"""Tokens per second; SCRIPT is played at twice the rate."""
ASKED = b"Think"
"""A prompt that contains this is answered by SCRIPT; any other as by an echo node."""
REASONING = "Ärger über 深い seas: two looks."
TEXT = "I look, zweimal 🦜."
CALLS = (
    ("look", '{"where": "Köln", "how far": 3}'),
    ("listen", '{"to": {"whom": "東京 </tool_call"}}'),
)
_WRITTEN = "".join(
    f'\n<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>' for name, arguments in CALLS
)
_BYTES = f"<think>\n{REASONING}\n</think>\n\n{TEXT}{_WRITTEN}".encode()
# Six bytes at a time, so that marks and characters are split.
_SAID = [_BYTES[at : at + 6] for at in range(0, len(_BYTES), 6)]
SCRIPT = list(range(len(PIECES), len(PIECES) + len(_SAID)))
_TEMPLATE = """\
{#- Thoughts are in <think> tags. #}
{%- for message in messages %}{{ message.role }}: {{ message.content }}{{ "\\n" }}{% endfor %}
{%- if add_generation_prompt %}assistant: {% endif %}"""


class Thinking(Breakable):
    """Engine that plays a script, continuing after the delivered tokens if these are a prefix of it."""

    def __init__(self) -> None:
        super().__init__(EchoOptions(rate=RATE))
        self.artefact = TokenizerArtefact(
            pieces=[*PIECES, *_SAID], control=[END], pattern=r"[\s\S]", merges=list(range(256))
        ).to_bytes()
        self.card = msgspec.structs.replace(
            self.card, id="thinking", chat_template=_TEMPLATE, tokenizer=digest(self.artefact)
        )

    async def write(self, job: Job, emit: Sink[Delta]) -> None:
        if ASKED not in bytes(job.prompt.tolist()):
            await super().write(job, emit)
            return
        async with asyncio.TaskGroup() as choices:
            for start in job.starts:
                choices.create_task(_play(start, emit, job.sampling.logprobs))


async def _play(start: Start, emit: Sink[Delta], likeliest: int | None) -> None:
    said = len(start.delivered)
    if start.delivered.tolist() != SCRIPT[:said]:
        raise InvalidRequest("these are not the words of the script", param="delivered")
    for at in range(said, len(SCRIPT)):
        await asyncio.sleep(0.5 / RATE)
        logprobs = None if likeliest is None else [TokenLogprobs(-at / 64, (at,) * likeliest, (-at / 8,) * likeliest)]
        emit(Delta(start.choice, [SCRIPT[at]], logprobs, "stop" if at + 1 == len(SCRIPT) else None))


if __name__ == "__main__":
    asyncio.run(serve(Thinking()))
