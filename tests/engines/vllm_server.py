"""vLLM's own server."""

from __future__ import annotations

import re
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import urlsplit

from tests.engines.server import MODEL, NAME, Server
from tests.faults.asking import Question, ask

CONTEXT = 1024
SEQUENCES = 8
"""Number of answers at once; vLLM queues further requests."""
_FLAGS = (
    *("--served-model-name", NAME, "--enforce-eager", "--dtype", "float32"),
    *("--max-model-len", str(CONTEXT), "--max-num-seqs", str(SEQUENCES), "--enable-prompt-tokens-details"),
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
)


_ENVIRON = {
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


class VllmServer(Server):
    def __init__(self) -> None:
        super().__init__("vllm", "serve", str(MODEL), *_FLAGS, environ=_ENVIRON)

    def wait(self) -> None:
        """Wait until it answers, and warm it up: the first logprobs take vLLM many seconds."""
        super().wait()
        question = Question(model=NAME, max_tokens=2, stream=False, more={"logprobs": True, "top_logprobs": 2})
        assert ask(self.url, question).status == 200

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric over all label values but those given."""
        rows = re.findall(rf"^{re.escape(name)}\{{(.*)\}} (\S+)$", _text(self.url + "/metrics"), re.MULTILINE)
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(float(value) for row, value in rows if all(part in row for part in wanted))


def _text(url: str) -> str:
    address = urlsplit(url)
    with closing(HTTPConnection(address.netloc, timeout=10)) as connection:
        connection.request("GET", address.path)
        return connection.getresponse().read().decode()
