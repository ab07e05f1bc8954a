"""What the tests share: specs as the command line makes them, small real data, and the command itself in process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bnstudy import cli
from bnstudy.config import conf_dir, run_spec
from bnstudy.data import Dataset
from bnstudy.spec import RunSpec

torch.set_num_threads(1)

CPU = torch.device("cpu")


@cache
def spec_of(*overrides: str) -> RunSpec:
    """The run that these overrides describe, 20 updates long unless they say else."""
    length = () if any(o.startswith(("steps=", "epochs=")) for o in overrides) else ("steps=20",)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("config", [*overrides, *length])
    return run_spec(OmegaConf.to_container(config, resolve=True))


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return spec_of().data.load(tmp_path_factory.mktemp("cache"), CPU)


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """`command("lr=0.1", ...)` runs `bnstudy` in an empty working directory: (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, entry: Callable[[], None] = cli.main) -> tuple[int, str, str]:
        # Hydra reads the arguments, and refuses to fall back to its own error messages only while this is unset.
        monkeypatch.setattr(sys, "argv", ["bnstudy", *arguments])
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        capfd.readouterr()
        try:
            entry()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        out, err = capfd.readouterr()
        return status, out, err

    return run
