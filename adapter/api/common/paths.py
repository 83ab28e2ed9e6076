"""Paths of requests: aliases of the endpoints, and the path that was probably meant by an unknown one."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from adapter.api.common.http_request import Target
from adapter.api.common.pipeline import Route

_PREFIXES = frozenset({"v1", "openai"})
"""Names that may come first, any number of them: base URLs are given without `/v1`, with it, and with it twice. Azure
has `/openai` and `/openai/v1`.
"""

_MODEL_FOLDERS = frozenset({"deployments", "engines"})
"""Names that a model's name and an endpoint follow: Azure's deployments, and the engines of OpenAI's first clients."""

_OTHER_NAMES = {
    # Ollama: ollama/ollama docs/api.md. Text Generation Inference: its OpenAPI document.
    "api/chat": "chat/completions",
    "api/generate": "completions",
    "api/embed": "embeddings",
    "api/tags": "models",
    "generate": "completions",
    "generate_stream": "completions",
    # Kubernetes API health endpoints.
    "livez": "healthz",
}
"""Names that other servers have for about the same thing."""

# Comparing long texts takes long.
_MAX_COMPARED = 64
_MIN_SIMILARITY = 0.75

ALIASES = (
    "Endpoints below `/v1`, and those whose requests name a model, also work without `/v1`, with `/v1` twice, and below"
    " `/openai` and `/openai/v1`; the latter also below `/openai/deployments/{model}`, as at Azure, and below"
    " `/v1/engines/{model}`: the model in the path then replaces that in the body."
)
"""Description of the aliases, for documentation."""


class PathTable:
    """Table of the paths of `routes`, and of all their aliases."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._targets = {route.mount: Target(route.mount, route.mount, open=route.open) for route in routes}
        self._mounts = tuple(route.mount for route in routes if route.path != route.mount)
        self._names = {_name(mount.split("/")[1:]): mount for mount in self._targets if mount != "/"}
        # Those for operators have no aliases: proxies block them by their paths.
        public = [route for route in routes if route.path.startswith("/v1/") or route.request is not None]
        self._aliases = {_name(route.mount.split("/")[1:]): route.mount for route in public}
        names = [_name(route.path.split("/")[1:]) for route in routes if route.request is not None]
        self._model_names = sorted(names, key=len, reverse=True)

    def find(self, path: str) -> Target:
        """Return the target of the decoded path of a request. An alias is never open."""
        return self._targets.get(path) or self._find([part for part in path.split("/") if part])

    def suggest(self, path: str) -> str | None:
        """Return the canonical path that was probably meant by an unknown one; None if nothing is similar."""
        name = _name([part for part in path.lower().split("/") if part])
        name = _OTHER_NAMES.get(name, name)
        if name in self._names:
            return self._names[name]
        if not name or len(name) > _MAX_COMPARED:
            return None
        inner = sorted((known for known in self._names if name.endswith(f"/{known}")), key=len, reverse=True)
        outer = [known for known in self._names if known.startswith(f"{name}/")]
        found = inner or outer or get_close_matches(name, self._names, n=1, cutoff=_MIN_SIMILARITY)
        return self._names[found[0]] if found else None

    def _find(self, parts: Sequence[str]) -> Target:
        clean = "/" + "/".join(parts)
        if clean in self._targets:
            return self._targets[clean]
        for mount in self._mounts:
            if clean.startswith(f"{mount}/"):
                return Target(clean, mount)
        return self._find_alias(_name(parts)) or Target(clean)

    def _find_alias(self, name: str) -> Target | None:
        if name in self._aliases:
            return Target(self._aliases[name], self._aliases[name])
        for mount in self._mounts:
            below = f"{_name(mount.split('/')[1:])}/"
            if name.startswith(below):
                return Target(f"{mount}/{name.removeprefix(below)}", mount)
        folder, _, rest = name.partition("/")
        # Without a model, `deployments/chat/completions` must not name one.
        if folder in _MODEL_FOLDERS and rest not in self._model_names:
            for known in self._model_names:
                model = rest.removesuffix(f"/{known}")
                if model not in ("", rest):
                    return Target(self._aliases[known], self._aliases[known], model)
        return None


def _name(parts: Sequence[str]) -> str:
    """Return a path, given as its parts, without prefixes."""
    first = next((index for index, part in enumerate(parts) if part not in _PREFIXES), len(parts))
    return "/".join(parts[first:])
