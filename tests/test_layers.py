"""Which package may import which: the picture in the README, kept true."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Who must not import what; a prefix stands for all the modules below it.
FORBIDDEN = [
    ("subnet", "adapter"),
    ("subnet", "litestar"),
    ("subnet.client", "subnet.node"),
    ("subnet.node", "subnet.client"),
    ("subnet.client", "subnet.engines"),
    ("subnet.engines", "subnet.client"),
    ("subnet.engines", "subnet.node"),
    ("subnet.engines", "subnet.protocols"),
    ("subnet.protocols", "subnet.client"),
    ("subnet.protocols", "subnet.node"),
    ("subnet.protocols", "subnet.detect"),
    ("subnet.client", "subnet.detect"),
    ("subnet.client", "subnet.http"),
    ("subnet.detect", "subnet.client"),
    ("subnet.detect", "subnet.pool"),
    ("subnet.detect", "subnet.node"),
    ("subnet.http", "subnet.client"),
    ("subnet.http", "subnet.pool"),
    ("subnet.http", "subnet.node"),
    ("subnet.http", "subnet.protocols"),
    ("subnet.http", "subnet.detect"),
    ("subnet.authorizers", "subnet.client"),
    ("subnet.authorizers", "subnet.node"),
    ("subnet.authorizers", "subnet.protocols"),
    ("subnet.errors", "subnet"),
    ("adapter", "subnet.node"),
    ("adapter", "subnet.engines"),
    ("adapter.schema", "adapter.api.routes"),
    ("adapter.schema", "adapter.prompt"),
    ("adapter.schema", "adapter.decode"),
    ("adapter.schema", "litestar"),
    ("adapter.prompt", "adapter.api.routes"),
    ("adapter.prompt", "adapter.decode"),
    ("adapter.prompt", "litestar"),
    ("adapter.decode", "adapter.api.routes"),
    ("adapter.decode", "adapter.prompt"),
    ("adapter.decode", "litestar"),
    ("adapter.generation.token_lane", "adapter.api.routes"),
    ("adapter.generation.token_lane", "litestar"),
    ("adapter.api.routes", "adapter.app"),
    ("adapter.api.routes", "adapter.cli"),
    ("adapter.app", "adapter.cli"),
]

# Starts nodes as processes, so it knows their settings and the line in which one says that it serves.
ALLOWED = {("adapter.process.local_nodes", "subnet.node")}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the two packages, by its dotted name."""
    paths = [path for package in ("adapter", "subnet") for path in sorted((ROOT / package).rglob("*.py"))]
    return {name_of(path): ast.parse(path.read_text(encoding="utf-8"), path) for path in paths}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).removeprefix("typing.") == "TYPE_CHECKING"


def import_nodes(node: ast.AST, *, inside_functions: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports that really happen; those for the type checker alone do not."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and is_type_checking(child):
            for statement in child.orelse:
                yield from import_nodes(statement, inside_functions=inside_functions)
        elif inside_functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from import_nodes(child, inside_functions=inside_functions)


def targets(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """The modules that an import names: `from a import b` is `a.b` where that is a module, else `a`."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif node.module:
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if inner in modules() else node.module


def imports_of(module: str, *, inside_functions: bool) -> set[str]:
    nodes = import_nodes(modules()[module], inside_functions=inside_functions)
    return {target for node in nodes for target in targets(node)}


def is_within(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(f"{prefix}.")


@pytest.mark.parametrize(("importer", "imported"), FORBIDDEN, ids=lambda name: str(name))
def test_a_layer_does_not_import_what_it_must_not_know(importer: str, imported: str) -> None:
    """No module of the first, anywhere in its code, imports one of the second."""
    wrong = [
        f"{module} imports {target}"
        for module in modules()
        if is_within(module, importer) and (module, imported) not in ALLOWED
        for target in sorted(imports_of(module, inside_functions=True))
        if is_within(target, imported)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_itself_in_a_circle() -> None:
    """Modules can be put in an order in which each imports only earlier ones."""
    graph = {module: imports_of(module, inside_functions=False) & modules().keys() for module in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("imported in a circle: " + " <- ".join(error.args[1]))


def test_imports_are_absolute() -> None:
    """A relative import would escape the other checks of this file."""
    wrong = [
        f"{module}, line {node.lineno}"
        for module, tree in modules().items()
        for node in import_nodes(tree, inside_functions=True)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not wrong, "relative imports:\n" + "\n".join(wrong)


def test_every_module_was_found() -> None:
    """The checks of this file look at real modules, not at an empty list."""
    assert {"adapter", "subnet", "subnet.errors"} <= modules().keys()
