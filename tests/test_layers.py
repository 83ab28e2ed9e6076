"""Which folder may import which: the layout in CONTRIBUTING.md, enforced."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.layers import folder_graph, folders, imports_of, modules

FOUNDATION = {
    *("subnet.aio", "subnet.chat", "subnet.errors", "subnet.generation", "subnet.node_info", "subnet.tensors"),
    *("subnet.artefact_cache", "subnet.budget", "subnet.child_process", "subnet.inflate", "subnet.listening"),
    *(
        "subnet.log_format",
        "subnet.output",
        "subnet.panics",
        "subnet.signals",
        "subnet.stop_scanner",
        "subnet.threads",
        "subnet.version",
    ),
}
"""Modules that every folder may import."""

ALLOWED = {
    # The gateway, from the top down.
    "adapter.cli": "adapter.config adapter.process subnet.config",
    "adapter.process": (
        "adapter.app adapter.api.operator adapter.auth adapter.config adapter.counts adapter.lifecycle adapter.server"
        " subnet subnet.authorizers subnet.client subnet.detect subnet.http subnet.models subnet.node"
        " subnet.pool.policies"
    ),
    "adapter.app": (
        "adapter.api adapter.api.common adapter.config adapter.counts adapter.errors adapter.generation"
        " adapter.lifecycle adapter.metrics adapter.server subnet"
    ),
    "adapter.api": (
        "adapter.api.chat adapter.api.common adapter.api.completions adapter.api.conversation adapter.api.embeddings"
        " adapter.api.messages adapter.api.operator adapter.api.tokenize adapter.server"
    ),
    "adapter.api.chat": (
        "adapter.api.common adapter.api.conversation adapter.decode adapter.errors adapter.generation adapter.offload"
        " adapter.server"
    ),
    "adapter.api.conversation": "adapter.api.common adapter.generation adapter.prompt adapter.tools.reading",
    "adapter.api.messages": (
        "adapter.api.common adapter.api.conversation adapter.decode adapter.errors adapter.generation adapter.offload"
        " adapter.server"
    ),
    "adapter.api.completions": (
        "adapter.api.common adapter.decode adapter.errors adapter.generation adapter.grammar adapter.offload"
        " adapter.server subnet subnet.client"
    ),
    "adapter.api.embeddings": (
        "adapter.api.common adapter.decode adapter.errors adapter.generation adapter.offload adapter.server"
        " subnet subnet.client"
    ),
    "adapter.api.tokenize": (
        "adapter.api.common adapter.api.conversation adapter.errors adapter.generation adapter.offload adapter.server"
    ),
    "adapter.api.operator": "adapter.api.common adapter.generation adapter.server subnet.pool",
    "adapter.api.common": (
        "adapter.auth adapter.config adapter.decode adapter.errors adapter.generation adapter.grammar"
        " adapter.lifecycle adapter.metrics adapter.offload adapter.request_id adapter.server subnet"
    ),
    "adapter.metrics": "adapter.counts adapter.generation subnet",
    "adapter.counts": "adapter.decode adapter.generation",
    "adapter.generation": (
        "adapter.decode adapter.errors adapter.grammar adapter.offload adapter.prompt adapter.request_id adapter.tools"
        " adapter.tools.derive adapter.tools.formats adapter.tools.reading"
        " subnet subnet.client.ledger subnet.client.resume"
    ),
    "adapter.grammar": (
        "adapter.errors adapter.offload adapter.tools adapter.tools.formats adapter.tools.grammar adapter.tools.reading"
    ),
    "adapter.decode": "adapter.tools adapter.tools.reading",
    "adapter.prompt": "adapter.prompt.metered subnet.models",
    "adapter.prompt.metered": "",
    "adapter.tools": "adapter.tools.formats adapter.tools.grammar adapter.tools.reading",
    "adapter.tools.derive": "adapter.tools.formats adapter.tools.grammar",
    "adapter.tools.formats": "adapter.tools.grammar adapter.tools.reading",
    "adapter.tools.grammar": "adapter.tools.reading",
    "adapter.tools.reading": "",
    "adapter.server": "adapter.errors adapter.request_id",
    "adapter.auth": "adapter.errors",
    "adapter.config": "adapter.tools subnet.config subnet.http subnet.pool.policies",
    "adapter.errors": "adapter.request_id",
    "adapter.lifecycle": "",
    "adapter.offload": "",
    "adapter.request_id": "",
    # The client side of the subnet.
    "subnet": "subnet.authorizers subnet.client subnet.pool subnet.protocols",
    "subnet.client": (
        "subnet.authorizers subnet.client.attempt subnet.client.ledger subnet.client.resume subnet.pool"
        " subnet.pool.policies subnet.protocols subnet.wire"
    ),
    "subnet.client.attempt": "subnet.authorizers subnet.client.ledger subnet.client.resume subnet.pool subnet.wire",
    "subnet.client.resume": "subnet.client.ledger subnet.wire",
    "subnet.client.ledger": "subnet.pool.policies subnet.wire",
    "subnet.pool": "subnet.authorizers subnet.pool.policies subnet.protocols",
    "subnet.pool.policies": "",
    "subnet.detect": (
        "subnet.authorizers subnet.engines subnet.engines.llama_server subnet.engines.sglang subnet.engines.vllm"
        " subnet.http subnet.protocols subnet.protocols.openai subnet.wire"
    ),
    "subnet.protocols": "subnet.authorizers subnet.engines subnet.http subnet.wire",
    "subnet.protocols.openai": "subnet.http subnet.models subnet.protocols subnet.wire",
    "subnet.authorizers": "subnet.wire",
    "subnet.wire": "",
    "subnet.http": "",
    "subnet.config": "",
    # The node.
    "subnet.cli": "subnet.config subnet.node",
    "subnet.node": (
        "subnet.authorizers subnet.config subnet.engines subnet.engines.echo subnet.engines.llama_cpp"
        " subnet.engines.llama_server subnet.engines.sglang subnet.engines.transformers subnet.engines.vllm"
        " subnet.http subnet.models subnet.wire"
    ),
    "subnet.engines": "subnet.wire",
    "subnet.engines.echo": "subnet.engines",
    "subnet.engines.llama_cpp": (
        "subnet.engines subnet.engines.llama_server subnet.engines.sampling subnet.engines.stepping subnet.http"
        " subnet.models"
    ),
    "subnet.engines.llama_server": "subnet.engines.remote subnet.http subnet.models",
    "subnet.engines.remote": "subnet.engines subnet.http subnet.models",
    "subnet.engines.sampling": "",
    "subnet.engines.sglang": "subnet.engines.remote",
    "subnet.engines.stepping": "subnet.engines subnet.engines.sampling",
    "subnet.engines.transformers": "subnet.engines.stepping subnet.models",
    "subnet.engines.vllm": "subnet.engines.remote subnet.http",
    "subnet.models": "",
}
# The order of the foundation, lowest first.
ORDER = [
    *(
        "errors",
        "budget",
        "inflate",
        "listening",
        "log_format",
        "output",
        "panics",
        "signals",
        "threads",
        "version",
        "stop_scanner",
    ),
    *("aio", "artefact_cache", "child_process", "chat", "tensors", "node_info", "generation"),
]


@pytest.mark.parametrize("folder", sorted(set(folders().values()) - FOUNDATION - {"adapter"}))
def test_a_folder_imports_only_what_it_may(folder: str) -> None:
    """No module imports a folder that is not listed for its own folder, not even inside a function or for a type."""
    allowed = {*ALLOWED[folder].split(), *FOUNDATION}
    wrong = [example for target, example in folder_graph().get(folder, {}).items() if target not in allowed]
    assert not wrong, "\n".join(wrong)


def test_the_list_names_only_what_is_imported() -> None:
    """A permitted import that is not used is removed from the list."""
    unused = [
        f"{folder} -> {target}"
        for folder, targets in ALLOWED.items()
        for target in targets.split()
        if target not in folder_graph().get(folder, {})
    ]
    assert not unused, "\n".join(unused)
    assert ALLOWED.keys() <= set(folders().values())


def test_the_foundation_imports_only_itself() -> None:
    """Each part of the foundation imports only parts below it."""
    for number, name in enumerate(ORDER):
        below = {f"subnet.{lower}" for lower in ORDER[:number]}
        assert set(folder_graph().get(f"subnet.{name}", {})) <= below, name
    assert {f"subnet.{name}" for name in ORDER} == FOUNDATION


def test_no_circular_imports_between_folders() -> None:
    """There are no circular imports between folders, including imports for types."""
    try:
        TopologicalSorter({folder: set(targets) for folder, targets in folder_graph().items()}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_circular_imports_between_modules() -> None:
    """There are no circular imports between modules when they are loaded."""
    graph = {module: set(imports_of(module, inside_functions=False, types=False)) - {module} for module in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_subnet_does_not_import_the_gateway() -> None:
    """The library imports neither the gateway nor its web framework."""
    wrong = [
        f"{module}: {written}"
        for module, tree in modules().items()
        for written in map(_written, ast.walk(tree))
        if module.startswith("subnet") and re.match(r"(from|import) (adapter|litestar)\b", written)
    ]
    assert not wrong, "\n".join(wrong)


def test_imports_are_absolute() -> None:
    """There are no relative imports, which the other checks of this file would miss."""
    wrong = [
        f"{module}, line {node.lineno}"
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not wrong, "relative imports:\n" + "\n".join(wrong)


def test_every_module_was_found() -> None:
    """The checks of this file find the modules of both packages."""
    assert {"adapter", "subnet", "subnet.errors"} <= modules().keys()


def _written(node: ast.AST) -> str:
    return ast.unparse(node) if isinstance(node, ast.Import | ast.ImportFrom) else ""
