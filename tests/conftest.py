"""What the tests share: specs as the command line makes them, small real data, and the command itself in process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bnstudy import cli
from bnstudy.claims.frames import StudyData, load_study
from bnstudy.config.build import build_run_spec, import_spec
from bnstudy.data.dataset import Dataset
from bnstudy.run import RunSpec
from bnstudy.store.files import conf_dir
from tests import synthetic

torch.set_num_threads(1)
for size in ("COLUMNS", "LINES"):  # of the terminal in which the tests run
    os.environ.pop(size, None)

CPU = torch.device("cpu")


@pytest.fixture(scope="session", autouse=True)
def wait_for_no_disk() -> Iterator[None]:
    """Files need not outlive a power failure here: to wait until they are on the disk takes most of a store's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@cache
def spec_of(*overrides: str) -> RunSpec:
    """The run that these overrides describe, 20 steps long unless they say otherwise."""
    length = () if any(o.startswith(("steps=", "epochs=")) for o in overrides) else ("steps=20",)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("config", [*overrides, *length])
    return build_run_spec(OmegaConf.to_container(config, resolve=True))


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return spec_of().data.load(tmp_path_factory.mktemp("cache"), CPU)


@pytest.fixture(autouse=True)
def forget_own_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Forget the modules that a test imported from its folders: those of other tests may have the same names."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    folder = str(tmp_path_factory.getbasetemp())
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(folder):
            del sys.modules[name]
            import_spec.cache_clear()


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """`command("lr=0.1", ...)` runs `bnstudy` in an empty working directory: (exit status, stdout, stderr without the
    line "Planning ..." of sweeps)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, entry: Callable[[], None] = cli.main) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bnstudy", *arguments])
        capfd.readouterr()
        try:
            entry()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        out, err = capfd.readouterr()
        return status, out, err.removeprefix("Planning ...\n")

    return run


def leave_figures_blank(patch: pytest.MonkeyPatch) -> None:
    """Draw figures, but render none: that takes most of the time of a report."""
    patch.setattr("bnstudy.report.images.render", lambda _, kind: {"svg": b"<svg></svg>", "png": b""}[kind])
    patch.setattr("bnstudy.report.all_studies.processes", lambda: 1)


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures of reports that the test itself writes are blank."""
    leave_figures_blank(monkeypatch)


@pytest.fixture(scope="session")
def sweep_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of learning rates, 8 x 2 norms x 3 seeds, of which one seed of one arm is missing."""
    folder = tmp_path_factory.mktemp("sweep")
    runs = synthetic.lr_sweep(seeds=3, total=100)
    done = [r for r in runs if (r.norm, r.lr, r.seed) != ("BatchNorm", 1.0, 2)]
    synthetic.write(folder, done)
    claims = ["higher_learning_rates"]
    synthetic.plan(folder, "lr_tolerance", [r.run_id for r in runs], title="Does it tolerate more?", claims=claims)
    return folder


@pytest.fixture(scope="session")
def sweep(sweep_dir: Path) -> StudyData:
    return load_study(sweep_dir, "lr_tolerance")


@pytest.fixture(scope="session")
def two_models(tmp_path_factory: pytest.TempPathFactory) -> StudyData:
    folder = tmp_path_factory.mktemp("two")
    synthetic.plan(folder, "architectures", synthetic.write(folder, synthetic.two_models()))
    return load_study(folder, "architectures")
