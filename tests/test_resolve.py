from __future__ import annotations

from pathlib import Path

import pytest

from subnet.errors import SettingsError
from subnet.models.resolve import pick, resolve


def test_the_default_is_the_packaged_model() -> None:
    """Nothing, and its name, mean the model that comes as a package."""
    assert resolve(None, print) == resolve("smollm2", print)
    assert resolve(None, print).suffix == ".gguf"


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    """Any file that begins as a GGUF does."""
    path = tmp_path / "anything"
    path.write_bytes(b"GGUF....")
    assert resolve(str(path), print) == path


@pytest.mark.parametrize("reference", ["missing.gguf", "folder/missing.gguf", "nonsense", "a/b/c", "a/b:notes.txt"])
def test_what_is_nowhere_is_one_clear_error(reference: str) -> None:
    """A path that does not exist is not taken for a repository."""
    with pytest.raises(SettingsError, match="model file not found"):
        resolve(reference, print)


def test_other_files_are_refused(tmp_path: Path) -> None:
    """A file of another kind, and a folder, are named as such."""
    path = tmp_path / "model.gguf"
    path.write_text("not a model")
    with pytest.raises(SettingsError, match="is not a GGUF file"):
        resolve(str(path), print)
    with pytest.raises(SettingsError, match="cannot be read"):
        resolve(str(tmp_path), print)


def test_a_repository_needs_one_obvious_file() -> None:
    """One GGUF is picked, several are listed, none is said."""
    assert pick("a/b", ["README.md", "m.gguf"]) == "m.gguf"
    with pytest.raises(SettingsError, match=r"2 GGUF files: choose one as a/b:FILE from x\.gguf, y\.gguf"):
        pick("a/b", ["y.gguf", "x.gguf"])
    with pytest.raises(SettingsError, match="no GGUF"):
        pick("a/b", ["README.md"])
