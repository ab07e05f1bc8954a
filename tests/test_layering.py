"""The order of the modules: each imports only from those above it, for type annotations too."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bnstudy"
ORDER = [
    "calling",
    "validation",
    "rng",
    "when",
    "store",
    "norms",
    "models",
    "inits",
    "losses",
    "optim",
    "data",
    "probes",
    "run",
]
ORDER += ["train", "loggers", "stats", "claims", "report", "sweep", "config", "api", "commands", "cli", "__main__"]
WITHOUT_TORCH = {"calling", "validation", "rng", "when", "store", "stats", "claims", "report"}
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def name_of(path: Path) -> str:
    """`bnstudy.train.loop`"""
    return ".".join(["bnstudy", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Our modules that a file imports, wherever it does."""
    tree = ast.parse(path.read_text())
    known = {name_of(module) for module in MODULES}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("bnstudy"):
            modules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {module if module in known else node.module for module in modules}
    return found


def part(module: str) -> str:
    """The folder or file of the package in which a module lies."""
    return module.split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_from_above(path: Path) -> None:
    own = ORDER.index(part(name_of(path)))
    assert {module for module in imports(path) - {"bnstudy"} if ORDER.index(part(module)) > own} == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name_of(path): imports(path) for path in MODULES}
    while leaves := {module for module, wanted in graph.items() if not wanted & graph.keys()}:
        graph = {module: wanted for module, wanted in graph.items() if module not in leaves}
    assert graph == {}


@pytest.mark.parametrize("path", [p for p in MODULES if part(name_of(p)) in ("stats", "claims", "report")], ids=name_of)
def test_reports_are_drawn_without_torch(path: Path) -> None:
    tree = ast.parse(path.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not any(name.split(".")[0] == "torch" for name in imported)
    assert {part(module) for module in imports(path) - {"bnstudy"}} <= WITHOUT_TORCH
