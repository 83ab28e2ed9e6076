"""Hugging Face hub on loopback with one repository."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec

REPOSITORY = "tiny/model"
_COMMIT = hashlib.sha1(b"tiny").hexdigest()


class Hub(ThreadingHTTPServer):
    """Serves `folder` as the repository tiny/model. `downloaded` are the names of the files that were requested."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.downloaded: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._respond()

    def do_GET(self) -> None:
        self._respond()

    def _respond(self) -> None:
        path, name = self.path.partition("?")[0], self.path.rpartition("/")[2]
        if path == f"/api/models/{REPOSITORY}/revision/main":
            self._send(msgspec.json.encode({"id": REPOSITORY, "sha": _COMMIT}))
        elif path == f"/api/models/{REPOSITORY}/tree/{_COMMIT}":
            files = [(file.name, file.read_bytes()) for file in sorted(self.server.folder.iterdir())]
            tree = [{"type": "file", "path": name, "size": len(body), "oid": _etag(body)} for name, body in files]
            self._send(msgspec.json.encode(tree))
        elif path.startswith(f"/{REPOSITORY}/resolve/") and (self.server.folder / name).exists():
            self.server.downloaded.append(name)
            self._send((self.server.folder / name).read_bytes())
        else:
            self.send_error(404)

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.send_header("etag", f'"{_etag(body)}"')
        self.send_header("x-repo-commit", _COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _etag(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


@contextmanager
def serving(folder: Path) -> Iterator[Hub]:
    with Hub(folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def environment(endpoint: str, home: Path) -> dict[str, str]:
    """Return the environment variables that make a process use this hub. The client reads them at import."""
    return {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "*", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
