"""The wheel, installed elsewhere and called from another directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: object, **options) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("bnstudy", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source)
    return next(folder.glob("*.whl"))


def test_the_wheel_contains_configs_templates_and_plugins(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"bnstudy/conf/{p.relative_to(ROOT / 'conf')}" for p in (ROOT / "conf").rglob("*.yaml")}
    assert configs <= names
    package = ROOT / "bnstudy"
    templates = {f"bnstudy/{p.relative_to(package)}" for p in (package / "report" / "templates").iterdir()}
    assert templates <= names
    assert "hydra_plugins/bnstudy_sweeper.py" in names
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
    assert "model: inception, mlp, module, resnet, rnn, transformer, vgg" in run(command, "--help", **options)
    assert run(python, "-c", "import bnstudy; print(bnstudy.__file__)", **options).startswith(str(site))
    assert "finished" in run(command, "-m", "norm=none,batch", "steps=5", "lr=0.5", "init.gain=0.7", **options)
    assert "reports/all/index.html" in run(report, **options)
    assert [p.name for p in here.iterdir()] == ["results"]
