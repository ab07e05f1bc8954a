from __future__ import annotations

import math

import numpy as np
import pytest

from bnstudy.report.reproductions.born_dead import COMPUTED
from tests.report.reproductions.synthetic_study import reproduction, results_by_arm, study


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


def test_the_page_names_the_source_of_the_expected_shares():
    runs = [{"norm": "NoNorm", "model.width": 2, "model.depth": 9} for _ in range(10)]
    rows = [(f"r{i}", 0, "", "network_dead", "", 1.0) for i in range(10)]
    expected = reproduction(study("lu_born_dead", runs, rows)).checks[0].expected
    assert expected.label == "0.8803 (c)"
    assert expected.source == "own simulation of two million networks a width, confirmed independently"
