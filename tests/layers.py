"""Modules of the two packages, the folders they are in, and what they import."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("adapter", "subnet")


@cache
def modules() -> dict[str, ast.Module]:
    """Return the syntax tree of every module of the two packages, by its dotted name."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {_name(path): ast.parse(path.read_text(encoding="utf-8"), path) for path in paths}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def folders() -> dict[str, str]:
    """Return the folder of each module; a module directly in a package is its own folder."""
    found = {}
    for module in modules():
        folder = ROOT.joinpath(*module.split("."))
        inside = module if folder.is_dir() else module.rpartition(".")[0]
        found[module] = module if inside in PACKAGES else inside
    return found


def imports_of(module: str, *, inside_functions: bool = True, types: bool = True) -> Iterator[str]:
    """Yield the modules that a module imports; with `types` also those imported only for the type checker."""
    for node in _imports(modules()[module], inside_functions=inside_functions, types=types):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules())
        elif node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if (target := inner if inner in modules() else node.module) in modules():
                    yield target


def _imports(node: ast.AST, *, inside_functions: bool, types: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and not types and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.orelse:
                yield from _imports(statement, inside_functions=inside_functions, types=types)
        elif inside_functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _imports(child, inside_functions=inside_functions, types=types)


@cache
def folder_graph() -> Mapping[str, Mapping[str, str]]:
    """Return which folder imports which, with an example of each; imports for types count."""
    found: dict[str, dict[str, str]] = {}
    for module, folder in folders().items():
        for target in imports_of(module):
            if folders()[target] != folder:
                found.setdefault(folder, {}).setdefault(folders()[target], f"{module} imports {target}")
    return found
