"""genie's dependencies: only the standard library, and PyYAML in two places."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import genie

FOLDER = Path(genie.__file__).parent


def imported(path: Path) -> Iterator[str]:
    """The top-level packages that a module imports, including lazy imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            yield str(node.module).partition(".")[0]


def test_genie_imports_the_standard_library_and_yaml_alone() -> None:
    foreign = {
        str(path.relative_to(FOLDER)): found
        for path in FOLDER.rglob("*.py")
        if (found := set(imported(path)) - {"genie"} - sys.stdlib_module_names)
    }
    assert foreign == {"kube.py": {"yaml"}, "node/explain.py": {"yaml"}}, "a kubeconfig, and what users apply"
