from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bnstudy import cli
from bnstudy.claims.arms import best_arms
from bnstudy.claims.frames import StudyData, load_study
from bnstudy.report.compare import compare, write_comparison
from bnstudy.validation import ConfigError
from tests import synthetic
from tests.synthetic import Run

ARMS = "BatchNorm, lr=0.3 vs NoNorm, lr=0.1"


def arm(study: StudyData, name: str) -> pd.DataFrame:
    return study.runs[study.runs["arm"] == name]


def test_differences_agree_with_plain_pandas(sweep):
    first, second = arm(sweep, "BatchNorm, lr=0.3"), arm(sweep, "NoNorm, lr=0.1")
    rows = {row.quantity: row for row in compare(first, second, sweep.metrics)}
    assert len(rows) == 5
    a, b = (100 * runs.set_index("seed")["test_accuracy"].sort_index() for runs in (first, second))
    accuracy = rows["test accuracy at the end"]
    assert accuracy.effect == pytest.approx((a - b).mean())
    assert accuracy.d_z == pytest.approx((a - b).mean() / (a - b).std())
    assert accuracy.p == stats.permutation_test((a - b,), np.mean, permutation_type="samples").pvalue
    assert (accuracy.first, accuracy.second, accuracy.n) == (pytest.approx(a.mean()), pytest.approx(b.mean()), 3)
    assert accuracy.low <= accuracy.effect <= accuracy.high
    a, b = (runs.set_index("seed")["step_ms"].sort_index() for runs in (first, second))
    assert rows["milliseconds per step"].effect == pytest.approx(stats.gmean(a / b))


def test_quantities_that_were_not_measured_are_left_out(tmp_path):
    synthetic.write(tmp_path, [Run(norm, seed=s, dead=False) for norm in ("NoNorm", "BatchNorm") for s in range(2)])
    study = load_study(tmp_path)
    rows = compare(arm(study, "BatchNorm"), arm(study, "NoNorm"), study.metrics)
    assert "dead units at the end" not in {row.quantity for row in rows}


def test_a_comparison_has_a_page_tables_and_figures(sweep_dir: Path):
    result = write_comparison(sweep_dir, ARMS, "lr_tolerance")
    assert result.folder.name == "compare-batchnorm-lr-0-3-vs-nonorm-lr-0-1-in-lr-tolerance"
    assert (result.folder / "figures" / "curves-mlp-on-digits.svg").is_file()
    text = (result.folder / "report.md").read_text()
    assert "No verdict" in text
    assert "SUPPORTED" not in text
    assert f"bnstudy-report 'compare={ARMS}' study=lr_tolerance scale=quick results_dir={sweep_dir}" in text
    data = json.loads((result.folder / "comparison.json").read_text())
    assert data["arms"] == ARMS.split(" vs ")
    assert set(pd.read_csv(result.folder / "runs.csv")["arm"]) == {*data["arms"]}
    assert result.cautions[0] in result.index.read_text()


def test_comparisons_with_long_names_have_folders_of_their_own(tmp_path):
    long = [Run(norm_fields=(("note", "x" * 120 + end),), seed=seed) for end in "abc" for seed in (0, 1)]
    a, _, b, _, c, _ = synthetic.write(tmp_path, long)
    folders = [
        write_comparison(tmp_path, f"{first},{second}").folder.name for first, second in ((a, b), (a, c), (a, b))
    ]
    assert folders[0] == folders[2] != folders[1]
    assert all(len(name) == 100 for name in folders)


def test_arms_without_a_shared_seed_are_refused(tmp_path):
    synthetic.write(tmp_path, [Run(seed=0), Run("BatchNorm", seed=1)])
    with pytest.raises(ConfigError, match="share no seed, so that nothing is paired: BatchNorm has 1, NoNorm has 0"):
        write_comparison(tmp_path, "BatchNorm,NoNorm")


def test_an_arm_is_not_compared_with_itself(sweep_dir: Path):
    with pytest.raises(ConfigError, match=r"both are the arm NoNorm, lr=0\.1"):
        write_comparison(sweep_dir, "NoNorm, lr=0.1 vs lr=0.1, NoNorm", "lr_tolerance")


def test_arms_of_different_networks_are_compared_with_a_caution(tmp_path):
    synthetic.write(tmp_path, [Run(model=model, seed=s) for model in ("MLP", "VGG") for s in range(2)])
    result = write_comparison(tmp_path, "MLP,VGG")
    assert "differ in their network or data" in result.cautions[1]
    assert len(list((result.folder / "figures").glob("*.svg"))) == 2


def test_one_seed_has_no_interval(tmp_path):
    synthetic.write(tmp_path, [Run(), Run("BatchNorm")])
    (row, *_) = write_comparison(tmp_path, "BatchNorm,NoNorm").findings
    assert row.endswith("p = 1, 1 seed.")
    means = re.match(r"test accuracy at the end: BatchNorm \d+\.(\d+), NoNorm \d+\.(\d+); paired difference", row)
    assert means
    assert len(means[1]) == len(means[2])


@pytest.mark.usefixtures("blank_figures")
def test_bnstudy_report_compares_arms_and_refuses_mistakes(command):
    synthetic.write(
        Path("results"), [Run(norm, lr, s) for norm in ("NoNorm", "BatchNorm") for lr in (0.1, 1.0) for s in (0, 1)]
    )
    status, out, _ = command("compare=BatchNorm, lr=1 vs NoNorm, lr=0.1", entry=cli.report)
    assert status == 0
    assert "results/reports/compare-batchnorm-lr-1-vs-nonorm-lr-0-1-in-all/index.html" in out
    status, _, err = command("compare=O'Norm,NoNorm", entry=cli.report)
    assert status == 2
    assert "there is no arm O'Norm in all" in err
    status, _, err = command("compare=a,b", "study=all", entry=cli.report)
    assert status == 2
    assert "compare is not allowed with study=all" in err


def test_names_without_a_learning_rate_mean_each_at_its_best(sweep_dir: Path, sweep):
    result = write_comparison(sweep_dir, "batch vs none", "lr_tolerance")
    best = {norm: arm["lr"] for norm, arm in best_arms(sweep.runs).set_index("norm").iterrows()}
    data = json.loads((result.folder / "comparison.json").read_text())
    assert data["arms"] == [f"{norm}, lr={best[norm]:g}" for norm in ("BatchNorm", "NoNorm")]
    assert result.cautions[1].startswith(f"batch stands for its best learning rate, {best['BatchNorm']:g}: of ")
    assert result.cautions[2].startswith("none stands for its best learning rate")
    assert "No verdict" in result.cautions[0]
