"""A small store of made-up runs: two norms, two learning rates, two seeds; one run unfinished, one failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnstudy.store.runs import Store
from tests import synthetic
from tests.synthetic import Run

FINISHED = [Run(norm, lr, seed, total=40) for norm in ("NoNorm", "BatchNorm") for lr in (0.1, 1.0) for seed in (0, 1)]
FINISHED[2] = Run("NoNorm", 1.0, 0, total=40, diverged_at=3)
UNFINISHED, FAILED = Run("LayerNorm", 0.1, 0, total=40), Run("LayerNorm", 0.1, 1, total=40)
SHARED = FINISHED[0].run_id
"""Planned by both studies."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """In `results` of the working directory of `command`."""
    found = Store(tmp_path / "results")
    synthetic.write(found.results_dir, FINISHED)
    for run in (UNFINISHED, FAILED):
        found.begin(run.run_id, run.spec)
    found.run(FAILED.run_id).error.write_text("command 1234\nTraceback\nRuntimeError: no such luck\n")
    ids = [run.run_id for run in (*FINISHED[:4], UNFINISHED, FAILED)]
    synthetic.plan(found.results_dir, "quickstart", ids)
    synthetic.plan(found.results_dir, "mine", [SHARED], title="Is it shared?")
    return found
