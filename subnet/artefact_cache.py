"""Cache of tokenizer artefacts on disk, as they take seconds to make for large vocabularies.

Whatever goes wrong with it, an artefact is only made again: a file has the digest of its content, and is written beside
its place and then moved there, so that other processes see all of it or nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from pathlib import Path

_DIGEST_SIZE = hashlib.sha256().digest_size
_MAX_SIZE = 256 * 2**20
"""Maximum size of all files, in bytes. Those that were not used for the longest time are removed."""

logger = logging.getLogger(__name__)


def default_folder() -> Path:
    """Return the folder of the cache of this user."""
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "subnet" / "tokenizers"


def replace_file(path: Path, data: bytes) -> None:
    """Write a file, of which other processes see all or nothing. Raises OSError, and leaves nothing behind then."""
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


class ArtefactCache:
    """Artefacts in `folder` by keys that are safe as file names."""

    def __init__(self, folder: Path, max_size: int = _MAX_SIZE) -> None:
        self._folder = folder
        self._max_size = max_size

    def get(self, key: str) -> bytes | None:
        """Return the artefact, or None if there is none or its file is damaged."""
        path = self._folder / key
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        content = data[_DIGEST_SIZE:]
        return content if hashlib.sha256(content).digest() == data[:_DIGEST_SIZE] else None

    def put(self, key: str, content: bytes) -> None:
        """Keep an artefact, if possible."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._folder / key, hashlib.sha256(content).digest() + content)
            self._remove_old()
        except OSError as error:
            logger.debug("the tokenizer cannot be kept in %s: %s", self._folder, error)

    def _remove_old(self) -> None:
        # Another process may remove files at the same time.
        files = []
        for path in self._folder.iterdir():
            with contextlib.suppress(OSError):
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
        size = sum(each[1] for each in files)
        for _, length, path in sorted(files)[:-1]:
            if size <= self._max_size:
                return
            path.unlink(missing_ok=True)
            size -= length
