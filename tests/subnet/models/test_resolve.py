"""Resolution of model references to GGUF files."""

from __future__ import annotations

from pathlib import Path

import pytest

from subnet.errors import SettingsError
from subnet.models.resolve import pick_gguf, resolve


def test_the_default_is_the_packaged_model() -> None:
    """None and "smollm2" both refer to the demo model that is installed as a package."""
    assert resolve(None, print) == resolve("smollm2", print)
    assert resolve(None, print).suffix == ".gguf"


def test_a_path_is_used_unchanged(tmp_path: Path) -> None:
    """The path of a GGUF file is used unchanged, whatever the file's name."""
    path = tmp_path / "anything"
    path.write_bytes(b"GGUF....")
    assert resolve(str(path), print) == path


@pytest.mark.parametrize("reference", ["missing.gguf", "folder/missing.gguf", "nonsense", "a/b/c", "a/b:notes.txt"])
def test_a_missing_file_is_not_a_repository(reference: str) -> None:
    """A path that does not exist is reported as missing, not treated as a repository."""
    with pytest.raises(SettingsError, match="model file not found"):
        resolve(reference, print)


def test_other_files_are_rejected(tmp_path: Path) -> None:
    """A file of another format and a folder are rejected, each with its own message."""
    path = tmp_path / "model.gguf"
    path.write_text("not a model")
    with pytest.raises(SettingsError, match="is not a GGUF file"):
        resolve(str(path), print)
    with pytest.raises(SettingsError, match="cannot be read"):
        resolve(str(tmp_path), print)


def test_a_repository_must_have_one_gguf_file() -> None:
    """The only GGUF file of a repository is used; several are listed in the error."""
    assert pick_gguf("a/b", ["README.md", "m.gguf"]) == "m.gguf"
    with pytest.raises(SettingsError, match=r"2 GGUF files: choose one as a/b:FILE from x\.gguf, y\.gguf"):
        pick_gguf("a/b", ["y.gguf", "x.gguf"])
    with pytest.raises(SettingsError, match="no GGUF"):
        pick_gguf("a/b", ["README.md"])
