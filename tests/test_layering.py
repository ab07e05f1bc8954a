"""The order of the modules: each imports only from those above it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bnstudy"
ORDER = [
    "checked",
    "spec",
    "rng",
    "files",
    "tables",
    "data",
    "norms",
    "inits",
    "models",
    "losses",
    "optim",
    "probes",
    "train",
    "store",
    "leases",
    "launch",
]
ORDER += ["analysis", "config", "deciding", "several", "cli"]
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def imports(path: Path) -> set[str]:
    """The names of our modules, one level down, that a file imports when it runs."""
    tree = ast.parse(path.read_text())
    for_types = [n for n in ast.walk(tree) if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING"]
    skipped = {id(inner) for node in for_types for inner in ast.walk(node)}
    froms = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and id(n) not in skipped]
    modules = [n.module for n in froms if n.module]
    return {m.split(".")[1] for m in modules if m.startswith("bnstudy.")}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_from_above(path):
    own = ORDER.index(path.relative_to(PACKAGE).parts[0].removesuffix(".py"))
    assert {name for name in imports(path) if ORDER.index(name) > own} == set()


@pytest.mark.parametrize("path", sorted((PACKAGE / "analysis").rglob("*.py")), ids=lambda p: p.name)
def test_the_analysis_knows_nothing_of_torch(path):
    names = {
        alias.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Import) for alias in n.names
    }
    assert not {name for name in names if name.startswith("torch")}
    assert imports(path) <= {"checked", "spec", "files", "tables", "store", "analysis"}
