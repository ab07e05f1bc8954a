"""Stores that the tests of the analysis read."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnstudy.analysis.frames import Study, load_study
from tests.analysis import synthetic


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
def sweep(sweep_dir: Path) -> Study:
    return load_study(sweep_dir, "lr_tolerance")


@pytest.fixture(scope="session")
def two_models(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("two")
    synthetic.plan(folder, "architectures", synthetic.write(folder, synthetic.two_models()))
    return load_study(folder, "architectures")
