from __future__ import annotations

from pathlib import Path

from bnstudy.claims.frames import StudyData, load_study
from bnstudy.report.provenance import provenance
from tests import synthetic
from tests.synthetic import Run


def test_the_line_counts_runs_seeds_losses_images_and_steps(sweep: StudyData) -> None:
    runs, seeds, lost, data, steps, training, version = provenance(sweep.runs, len(sweep.planned))
    assert (runs, seeds, lost) == ("47 of 48 runs", "seeds 0 to 2", "12 diverged")
    assert data == "Digits: 1,150 training, 360 test images"
    assert steps == f"{int(sweep.runs['steps'].iloc[0])} steps"
    assert training.endswith("of training on cpu")
    assert version == "bnstudy 0.1.0"


def test_different_steps_are_a_range_and_one_seed_is_named(tmp_path: Path) -> None:
    synthetic.write(tmp_path, [Run(total=20, seed=7), Run("BatchNorm", total=40, seed=7)])
    line = provenance(load_study(tmp_path).runs, 2)
    assert "20 to 40 steps" in line
    assert "seed 7" in line
