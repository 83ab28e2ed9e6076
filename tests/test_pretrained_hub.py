"""Models of the hub, fetched from one on loopback by the real client, in a process of its own (it reads where the hub
is once, when it is imported)."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from tests.pretrained import folder_of

ASK = """
from subnet.errors import SettingsError
from subnet.models.pretrained import describe_pretrained
try:
    card, artefact = describe_pretrained("tiny/model")
except SettingsError as error:
    print("error:", error.message)
else:
    print(card.id, card.context_length, card.tokenizer)
"""
COMMIT = hashlib.sha1(b"tiny").hexdigest()


class Hub(ThreadingHTTPServer):
    """Serves `folder` as the repository tiny/model; `asked` are the names of files that were fetched."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path, name = self.path.partition("?")[0], self.path.rpartition("/")[2]
        if path == "/api/models/tiny/model/revision/main":
            self._send(msgspec.json.encode({"id": "tiny/model", "sha": COMMIT}))
        elif path == f"/api/models/tiny/model/tree/{COMMIT}":
            files = [(file.name, file.read_bytes()) for file in sorted(self.server.folder.iterdir())]
            tree = [{"type": "file", "path": name, "size": len(body), "oid": _etag(body)} for name, body in files]
            self._send(msgspec.json.encode(tree))
        elif path.startswith("/tiny/model/resolve/") and (self.server.folder / name).exists():
            self.server.asked.append(name)
            self._send((self.server.folder / name).read_bytes())
        else:
            self.send_error(404)

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.send_header("etag", f'"{_etag(body)}"')
        self.send_header("x-repo-commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _etag(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    config = {"max_position_embeddings": 512}
    folder = folder_of(tmp_path / "model", tokenizer_config={"eos_token": "<|end|>"}, config=config)
    (folder / "model.safetensors").write_bytes(b"large")
    with Hub(folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(endpoint: str, home: Path) -> str:
    where = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "*", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-c", ASK]
    told = subprocess.run(command, env=os.environ | where, capture_output=True, text=True, timeout=60, check=True)
    return told.stdout


def test_only_the_small_files_are_fetched(hub: Hub, tmp_path: Path) -> None:
    """The card of a model on the hub, after one line to the user; its weights stay there."""
    first, card = ask(f"http://127.0.0.1:{hub.server_port}", tmp_path / "home").splitlines()
    assert first == "fetching files of tiny/model, if they are not here yet"
    assert card.startswith("tiny/model 512 ")
    assert set(hub.asked) == {"tokenizer.json", "tokenizer_config.json", "config.json"}


def test_a_hub_that_is_away_is_one_clear_error(hub: Hub, tmp_path: Path) -> None:
    """In one line, unless the files are here already."""
    endpoint, home = f"http://127.0.0.1:{hub.server_port}", tmp_path / "home"
    known = ask(endpoint, home)
    nowhere = "http://127.0.0.1:9"
    assert ask(nowhere, home) == known
    lines = ask(nowhere, tmp_path / "empty").splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("error: tiny/model cannot be fetched: ")
