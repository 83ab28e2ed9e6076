"""Figures about the code itself: `python -m tests.house` prints them.

They say nothing about what the code does, but a change that makes one of them worse is worth a second look.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median

from tests.layers import PACKAGES, ROOT, folder_graph, folders, imports_of, modules

# A docstring should begin with a plain verb or noun phrase.
_NOT_PLAIN = re.compile(r"(What|Whether|Who|Whom|Whose|Of|Where|When|How|Those|That|As|The same|It|They|So)\b")
_SHARED_NAMES = {
    "__init__",
    "base",
    "chat",
    "cli",
    "collect",
    "endpoint",
    "errors",
    "prepare",
    "stream",
    "token",
    "types",
    "validation",
}
"""File names that mean the same in every folder."""


def paths() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def docstrings() -> Iterator[str]:
    """Yield every docstring of a module, class or function."""
    for tree in modules().values():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if text := ast.get_docstring(node):
                yield text


def functions() -> list[int]:
    """Return the number of lines of every function."""
    return [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for tree in modules().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def repeated_names() -> dict[str, int]:
    """Return file names that are used for different things, with their counts."""
    names = Counter(path.stem for path in paths() if path.stem not in _SHARED_NAMES)
    return {name: count for name, count in sorted(names.items()) if count > 1}


def cycle() -> str:
    """Return a cycle of imports between folders, or "none"."""
    try:
        TopologicalSorter({folder: set(targets) for folder, targets in folder_graph().items()}).prepare()
    except CycleError as error:
        return " -> ".join(error.args[1])
    return "none"


def levels() -> int:
    """Return the number of folders in the longest chain of imports."""
    order = TopologicalSorter({folder: set(targets) for folder, targets in folder_graph().items()}).static_order()
    height: dict[str, int] = {}
    for folder in order:
        height[folder] = 1 + max((height[target] for target in folder_graph().get(folder, {})), default=0)
    return max(height.values())


def single_importer() -> int:
    """Return the number of modules that exactly one other module imports."""
    used = Counter(target for module in modules() for target in set(imports_of(module)) if target != module)
    return sum(1 for module in modules() if used[module] == 1)


def main() -> None:
    sizes = {path: len(path.read_text().splitlines()) for path in paths()}
    largest = max(sizes, key=lambda path: sizes[path])
    texts = list(docstrings())
    plain = sum(1 for text in texts if not _NOT_PLAIN.match(text))
    rows: dict[str, object] = {
        "files": len(sizes),
        "lines": sum(sizes.values()),
        "median file": f"{median(sizes.values()):.0f} lines",
        "largest file": f"{sizes[largest]} lines ({largest.relative_to(ROOT)})",
        "functions": f"{len(functions())}, median {median(functions()):.0f} lines, longest {max(functions())}",
        "folders": len(set(folders().values())),
        "levels of folders": levels() if cycle() == "none" else "-",
        "imports between folders": sum(len(targets) for targets in folder_graph().values()),
        "import cycle of folders": cycle(),
        "modules with one importer": single_importer(),
        "loose modules in adapter/": sum(1 for path in paths() if path.parent == ROOT / "adapter") - 1,
        "loose modules in subnet/": sum(1 for path in paths() if path.parent == ROOT / "subnet") - 1,
        "names used for several files": ", ".join(f"{name} x{count}" for name, count in repeated_names().items()),
        "docstrings that begin plainly": f"{plain} of {len(texts)} ({plain / len(texts):.0%})",
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")


if __name__ == "__main__":
    main()
