from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from bnstudy.claims.frames import StudyData
from bnstudy.report.report import write_report
from bnstudy.report.reproductions import ReproductionResult, reproduce
from bnstudy.report.reproductions.base import compare_with_bounds, share_interval
from bnstudy.report.reproductions.born_dead import COMPUTED
from bnstudy.report.reproductions.explosion import LIMIT, growth_of, relu_growth, theory
from bnstudy.report.reproductions.shift import SanturkarShift
from bnstudy.report.reproductions.sigmoids import IoffeSigmoids
from bnstudy.stats.intervals import Estimate
from tests import synthetic


def study(name: str, runs: list[dict], metrics: list[tuple]) -> StudyData:
    """Only the data that reproductions read; `metrics` are run_id, step, split, metric, layer, value."""
    frame = pd.DataFrame(
        [{"run_id": f"r{i}", "seed": i, "steps": 100, "diverged": False, **run} for i, run in enumerate(runs)]
    )
    columns = ["run_id", "step", "split", "metric", "layer", "value"]
    finished = frame[frame.get("finished", pd.Series(True, frame.index)).fillna(True).astype(bool)]
    return StudyData(
        name, "?", "quick", (), (), (), frame, finished, pd.DataFrame(metrics, columns=columns), pd.DataFrame(), {}
    )


def reproduction(data: StudyData) -> ReproductionResult:
    result = reproduce(data)
    assert result is not None
    return result


def results_by_arm(data: StudyData) -> dict[str, str]:
    return {check.arm: check.result for check in reproduction(data).checks}


def test_a_value_is_met_if_its_whole_interval_lies_within_the_tolerance():
    bounds = (0.9, 1.1)
    assert compare_with_bounds(Estimate(1.0, 0.95, 1.05, 5), bounds) == "met"
    assert compare_with_bounds(Estimate(1.0, 0.85, 1.05, 5), bounds) == "undecided"
    assert compare_with_bounds(Estimate(1.3, 1.2, 1.4, 5), bounds) == "not met"
    assert compare_with_bounds(Estimate(1.0, math.nan, math.nan, 1), bounds) == "undecided"
    assert compare_with_bounds(Estimate(math.nan, math.nan, math.nan, 0), bounds) == "no data"


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (7, 20), (20, 20), (438, 500)])
def test_the_interval_of_a_share_has_tails_of_2_5_percent(hits, n):
    share = share_interval(hits, n)
    if hits > 0:
        assert 1 - binom.cdf(hits - 1, n, share.low) == pytest.approx(0.025)
    if hits < n:
        assert binom.cdf(hits, n, share.high) == pytest.approx(0.025)
    assert share.low <= share.mean == hits / n <= share.high


def test_the_theory_of_growth_has_the_published_limits():
    assert relu_growth(10**7) == pytest.approx(math.pi / (math.pi - 1), rel=1e-6) == pytest.approx(LIMIT)
    assert (relu_growth(32), relu_growth(16)) == (pytest.approx(1.52, abs=0.005), pytest.approx(1.59, abs=0.005))
    assert theory("BatchNorm", "linear", 8) == 6 / 5
    assert (theory("NoNorm", "relu", 8), theory("NoNorm", "linear", 8)) == (1, 2)
    assert math.isnan(theory("LayerNorm", "relu", 8))


def test_growth_is_measured_in_the_middle_layers():
    rms = pd.Series(1.5 ** (-np.arange(24) / 2))
    rms.iloc[[0, 1, 22, 23]] = 100.0
    assert growth_of(rms) == pytest.approx(1.5)
    rms.iloc[10] = 0.0
    assert math.isnan(growth_of(rms))


def test_growth_as_in_theory_is_met_and_missing_arms_are_listed():
    runs = [{"norm": "BatchNorm", "model.activation": "relu", "batch_size": 16} for _ in range(3)]
    runs.append({"norm": "NoNorm", "model.activation": "relu", "batch_size": 16, "finished": False})
    rows = [
        (f"r{i}", step, "", "backprop_rms", f"hidden{d}", (1.59 + 0.001 * i) ** (-d / 2) if step == 0 else 1.0)
        for i in range(3)
        for step in (0, 1)
        for d in range(12)
    ]
    about = study("yang_explosion", runs, rows)
    result = reproduction(about)
    assert result.figure is not None
    assert result.figure.kind == "yang_explosion"
    table = {(check.arm, check.quantity): check.result for check in result.checks}
    assert table["BatchNorm, relu, batch 16", "growth per layer"] == "met"
    assert table["BatchNorm, relu, batch 16", "growth per layer, the largest batch"] == "not met"
    assert table["NoNorm, relu, batch 16", "growth per layer"] == "no data"


@pytest.mark.parametrize("width", [2, 3, 5])
def test_the_expected_shares_match_simulated_networks(width):
    rng, dead, n = np.random.default_rng(0), 0, 3000
    for _ in range(n):
        a = np.array([[1.0], [-1.0]])
        for _ in range(9):
            a = np.maximum(a @ rng.standard_normal((a.shape[1], width)), 0)
        dead += not a.any()
    assert dead / n == pytest.approx(COMPUTED[width], abs=4 * math.sqrt(0.25 / n))


def test_shares_are_met_within_the_tolerance_and_undecided_with_few_networks():
    norms = ("NoNorm", "BatchNorm")
    runs = [{"norm": norm, "model.width": 2, "model.depth": 9} for norm in norms for _ in range(1000)]
    rows = [(f"r{i}", 0, "", "network_dead", "", float(i < 880)) for i in range(2000)]
    found = results_by_arm(study("lu_born_dead", runs, rows))
    assert (found["NoNorm, width 2"], found["BatchNorm, width 2"]) == ("met", "met")
    assert (found["NoNorm, width 3"], found["BatchNorm, width 3"]) == ("no data", "no data")
    none_dead = [(*row[:5], 0.0) for row in rows]
    assert results_by_arm(study("lu_born_dead", runs, none_dead))["NoNorm, width 2"] == "not met"
    few = results_by_arm(study("lu_born_dead", [runs[0], runs[-1]], [rows[0], (*rows[-1][:5], 0.0)]))
    assert (few["NoNorm, width 2"], few["BatchNorm, width 2"]) == ("undecided", "no data")


def test_the_settled_cosine_is_a_mean_over_layers_and_the_second_half_of_the_steps():
    rows = [("r0", step, "", "ics_cosine", layer, v) for step, v in ((0, 9.0), (50, 0.2), (100, 0.6)) for layer in "ab"]
    rows[-1] = (*rows[-1][:5], 1.0)
    about = study("santurkar_linear", [{"norm": "NoNorm", "lr": 1e-3, "final.train_loss": 1.0}], rows)
    assert SanturkarShift(about).settled_cosines()["r0"] == pytest.approx((0.2 + 0.8) / 2)


def test_cosines_near_one_and_zero_and_a_lower_loss_are_met():
    runs = [
        {"norm": norm, "lr": 1e-3, "seed": s, "final.train_loss": loss + 0.01 * s * loss}
        for norm, loss in (("NoNorm", 5.0), ("BatchNorm", 1.0))
        for s in range(4)
    ]
    value = {i: (0.99 if i < 4 else 0.01) + 0.001 * (i % 4) for i in range(8)}
    rows = [(f"r{i}", step, "", "ics_cosine", "a", value[i]) for i in value for step in (0, 100)]
    rows += [(f"r{i}", step, "train", "loss", "", 1.0) for i in value for step in (0, 100)]
    about = study("santurkar_linear", runs, rows)
    assert {check.result for check in reproduction(about).checks} == {"met"}
    assert reproduction(about).figure is not None


def test_the_absolute_cosine_is_large_where_opposite_signs_cancel():
    rows = [("r0", 100, "", "ics_cosine", layer, v) for layer, v in (("a", 0.9), ("b", -0.9))]
    about = study("santurkar_linear", [{"norm": "BatchNorm", "lr": 1e-3, "final.train_loss": 1.0}], rows)
    assert SanturkarShift(about).settled_cosines()["r0"] == pytest.approx(0)
    assert SanturkarShift(about).settled_cosines(absolute=True)["r0"] == pytest.approx(0.9)


def test_the_arm_states_how_many_diverged_runs_are_left_out():
    runs = [
        {"norm": norm, "lr": 1e-3, "seed": s, "diverged": norm == "NoNorm", "final.train_loss": math.inf}
        for norm in ("NoNorm", "BatchNorm")
        for s in range(2)
    ]
    arms = results_by_arm(study("santurkar_linear", runs, []))
    assert "NoNorm, lr=0.001, 100 steps (2 of 2 diverged, left out)" in arms


SETTING = {"lr": 0.01, "batch_size": 60, "init": "Normal", "init.std": 0.05}


def sigmoid_study(data: str, steps: int) -> StudyData:
    runs = [
        {"norm": norm, "seed": s, "data": data, "steps": steps, "test_accuracy": accuracy + 0.001 * s, **SETTING}
        for norm, accuracy in (("NoNorm", 0.809), ("BatchNorm", 0.90))
        for s in range(3)
    ]
    rows = []
    for i in range(6):
        for step, median in ((0, 0.0), (10, 1.0), (20, 1.0 + (i < 3))):
            spread = {"unit_q15": -1.0, "unit_q50": 0.0, "unit_q85": 1.0 + 0.1 * i}
            rows += [(f"r{i}", step, "", metric, "hidden3", median + v) for metric, v in spread.items()]
            rows += [(f"r{i}", step, "", metric, "out", 50.0) for metric in spread]
            rows.append((f"r{i}", step, "test", "accuracy", "", 0.5))
    return study("ioffe_fig1", runs, rows)


def test_movement_is_the_path_of_the_median_relative_to_the_width():
    movement = IoffeSigmoids(sigmoid_study("MNIST", 50_000)).movement()
    assert movement["r0"] == pytest.approx(2 / 2)
    assert movement["r5"] == pytest.approx(1 / 2.5)


def test_values_are_compared_only_with_the_published_data_and_length():
    same = results_by_arm(sigmoid_study("MNIST", 50_000))
    assert (same["NoNorm"], same["BatchNorm"]) == ("met", "not met")
    assert same["BatchNorm minus NoNorm"] == "met"
    for data, steps in (("Digits", 50_000), ("MNIST", 500)):
        other = results_by_arm(sigmoid_study(data, steps))
        assert set(other.values()) == {"not comparable"}


def test_expected_values_are_marked_by_their_reliability():
    result = reproduction(sigmoid_study("MNIST", 50_000))
    assert [check.expected.label for check in result.checks] == ["0.809 (n)", "0.973 (n)", "below 0 (m)"]
    assert set(result.marks) == {"n", "m"}


def test_findings_count_the_expected_values_and_list_those_not_met():
    counts, *missed = reproduction(sigmoid_study("MNIST", 50_000)).findings
    assert counts == "Of 3 expected values: 2 met, 1 not met."
    assert missed == ["Not met: final test accuracy, BatchNorm: 0.901 (0.899 to 0.903, 3 seeds); expected 0.973 (n)."]


def test_a_study_without_a_reproduction_file_reproduces_nothing(sweep: StudyData):
    assert reproduce(sweep) is None


def test_the_report_shows_checks_without_data_and_not_comparable(tmp_path: Path):
    runs = [synthetic.Run(norm, seed=s) for norm in ("NoNorm", "BatchNorm") for s in range(2)]
    synthetic.plan(tmp_path, "ioffe_fig1", synthetic.write(tmp_path, runs))
    result = write_report(tmp_path, "ioffe_fig1")
    for page in ("index.html", "report.md"):
        text = (result.folder / page).read_text()
        assert "Published results and ours" in text
        assert "not comparable" in text
        assert "no data" in text


OWN_REPRODUCTION = """
from bnstudy.report.reproductions.base import Expected, Reproduction, make_check
from bnstudy.stats.intervals import mean_interval

class Mine(Reproduction):
    note = "What was measured."

    def checks(self):
        measured = mean_interval(self.study.runs["test_accuracy"])
        return [make_check("accuracy", "all arms", Expected("above 0.5", "c", "me"), measured, (0.5, 1), "above 0.5")]

    def draw(self):
        return None
"""


def test_a_reproduction_from_outside_the_package_is_in_the_report(tmp_path: Path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_reproductions.py").write_text(OWN_REPRODUCTION)
    own = tmp_path / "my_conf" / "reproduction"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("_target_: my_reproductions.Mine")
    synthetic.plan(tmp_path, "mine", synthetic.write(tmp_path, [synthetic.Run(seed=s) for s in range(3)]))
    result = write_report(tmp_path, "mine", config_dirs=[own.parent])
    assert result.findings == ("Of 1 expected values: 1 met.",)
    assert f"--config-dir={own.parent}" in result.index.read_text()
    assert write_report(tmp_path, "mine").findings != result.findings
