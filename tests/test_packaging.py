"""The wheel, installed elsewhere and called from another directory."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: object, **options) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    """A folder with the source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("packages")
    source = tmp_path_factory.mktemp("source")
    for name in ("bnstudy", "conf", "docs", "hydra_plugins"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitignore", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source)
    return folder


@pytest.fixture(scope="module")
def wheel(packages) -> Path:
    return next(packages.glob("*.whl"))


def package_files() -> set[str]:
    """The files of the package in the repository."""
    found = [*(ROOT / "bnstudy").rglob("*"), *(ROOT / "hydra_plugins").rglob("*")]
    return {str(p.relative_to(ROOT)) for p in found if p.is_file() and p.suffix not in (".pyc", ".pyo")}


def test_the_source_distribution_contains_the_package_its_configs_and_docs(packages):
    with tarfile.open(next(packages.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    others = {str(p.relative_to(ROOT)) for folder in ("conf", "docs") for p in (ROOT / folder).rglob("*.yaml")}
    assert package_files() | others | {"LICENSE", "README.md", "docs/index.md"} <= names
    assert not [name for name in names if name.startswith("tests/") or "__pycache__" in name]


def test_an_index_accepts_the_packages_and_shows_the_readme_without_dead_links(packages):
    files = sorted(packages.iterdir())
    assert "PASSED" in run(sys.executable, "-m", "twine", "check", "--strict", *files)
    metadata = email.message_from_string(zipfile.ZipFile(files[0]).read("bnstudy-0.1.0.dist-info/METADATA").decode())
    text = metadata.get_payload()
    assert text.startswith("# bnstudy")
    assert "Getting started: from the installation" in text
    assert not re.findall(r"\]\((?!https?:)", text)
    assert "<!--" not in text
    assert metadata["License-Expression"] == "MIT"
    assert metadata["License-File"] == "LICENSE"


def test_the_wheel_contains_configs_templates_and_plugins(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"bnstudy/conf/{p.relative_to(ROOT / 'conf')}" for p in (ROOT / "conf").rglob("*.yaml")}
    assert configs <= names
    assert package_files() <= names
    assert {n.split("/")[0] for n in names} == {"bnstudy", "hydra_plugins", "bnstudy-0.1.0.dist-info"}


@pytest.mark.slow
def test_the_installed_wheel_works_from_another_directory(wheel, tmp_path):
    """In a separate environment, which borrows the dependencies of this one."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    here = tmp_path / "elsewhere"
    here.mkdir()
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command, report = (tmp_path / "env" / "bin" / name for name in ("bnstudy", "bnstudy-report"))
    options = {"cwd": here, "env": environment}
    assert "or inception, module, resnet, rnn, transformer, vgg" in run(command, "--help", **options)
    assert run(python, "-c", "import bnstudy; print(bnstudy.__file__)", **options).startswith(str(site))
    assert "finished" in run(command, "-m", "norm=none,batch", "steps=5", "lr=0.5", "init.gain=0.7", **options)
    assert "reports/all/index.html" in run(report, **options)
    assert [p.name for p in here.iterdir()] == ["results"]
