from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import binom

from bnstudy.claims.frames import StudyData
from bnstudy.report.report import write_report
from bnstudy.report.reproductions import reproduce
from bnstudy.report.reproductions.base import compare_with_bounds, share_interval
from bnstudy.report.reproductions.sigmoids import IoffeSigmoids
from bnstudy.stats.intervals import Estimate
from tests import synthetic
from tests.report.reproductions.synthetic_study import reproduction, results_by_arm, study


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


def test_scales_of_the_pixels_are_not_pooled():
    usual = sigmoid_study("MNIST", 50_000)
    is_unit = usual.runs["seed"] == 2
    runs = usual.runs.assign(**{"data.scale": [("unit" if unit else None) for unit in is_unit]})
    result = reproduction(replace(usual, runs=runs))
    accuracies = {c.arm: c.measured for c in result.checks if c.quantity == "final test accuracy"}
    assert accuracies["NoNorm, scale=unit"] == "0.811 (1 seed)"
    assert accuracies["NoNorm, scale=standardized"].startswith("0.810 (")
    assert result.draw().caption.endswith("for seed 2. Pixels: unit.")


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


@pytest.mark.usefixtures("blank_figures")
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


@pytest.mark.usefixtures("blank_figures")
def test_a_reproduction_from_outside_the_package_is_in_the_report(tmp_path: Path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_reproductions.py").write_text(OWN_REPRODUCTION)
    own = tmp_path / "my_conf" / "reproduction"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("_target_: my_reproductions.Mine")
    synthetic.plan(tmp_path, "mine", synthetic.write(tmp_path, [synthetic.Run(seed=s) for s in range(3)]))
    result = write_report(tmp_path, "mine", config_dirs=[own.parent])
    assert result.findings == ("Of 1 expected values: 1 met.",)
    for page in ("index.html", "report.md"):
        assert (result.folder / page).read_text().count("Of 1 expected values: 1 met.") == 1
    assert f"--config-dir={own.parent}" in result.index.read_text()
    assert write_report(tmp_path, "mine").findings != result.findings
