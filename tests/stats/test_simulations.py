"""The simulations of docs/concepts/verdicts.md, on few studies."""

from __future__ import annotations

import numpy as np
import pytest

from bnstudy.claims.contrasts import contrasts
from scripts.simulations.looks import at_rates_of_others
from scripts.simulations.protocol import SHAPES, judge_equal_arms, make_claim, simulate_runs, simulate_study
from scripts.simulations.verdicts import CUTS, DRAWS, wrong_verdicts


def test_rates_of_others_are_those_of_contrasts():
    runs = simulate_runs(np.random.default_rng(1), 14, narrow=False)
    (contrast, _) = contrasts(simulate_study(np.random.default_rng(1), 14, narrow=False), make_claim("accuracy"))
    a, b = at_rates_of_others(runs.val, 100 * runs.test)
    assert contrast.d.to_numpy() == pytest.approx(b - a)


@pytest.mark.parametrize("narrow", SHAPES.values(), ids=SHAPES)
def test_equal_arms_with_a_second_pass_have_no_wrong_verdict(narrow):
    found = dict(judge_equal_arms(simulate_study(np.random.default_rng(0), 14, narrow)))
    assert {key[:2] for key in found} == {(c, v) for c in ("accuracy", "speed") for v in ("best_rate", "same_rate")}
    assert {status for (_, _, any_effect), status in found.items() if not any_effect} <= {"NEGLIGIBLE", "INCONCLUSIVE"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*DRAWS, *CUTS])
def test_wrong_verdicts_are_as_rare_as_documented(name):
    found = wrong_verdicts(name, 14, studies=300, seed=1)
    if "collapse" in name:
        assert found["withheld"] >= 0.95
    else:
        assert max(found["SUPPORTED"], found["NEGLIGIBLE"], found["CONTRADICTED"]) <= 0.075
