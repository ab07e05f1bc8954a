from __future__ import annotations

import pytest

from bnstudy.claims.counterevidence import NOTHING, find_counterevidence
from bnstudy.claims.verdicts import verdicts
from tests import sweeps


def sentences(claim: str = "dead_relus", **changes) -> list[str]:
    return find_counterevidence(verdicts(sweeps.of(claims=(claim,), **changes)))


def test_a_plain_result_has_no_counterevidence():
    assert sentences(fewer=0.15) == [NOTHING]


def test_cases_that_do_not_support_the_claim_are_listed():
    both = [
        *verdicts(sweeps.of(claims=("dead_relus",), fewer=0.15)),
        *verdicts(sweeps.of(claims=("dead_relus",), fewer=0.001, models=("VGG",))),
    ]
    (sentence, *_) = find_counterevidence(both)
    assert sentence.startswith("Negligible for VGG on Digits: ")
    assert sentence.endswith("while it is supported for MLP on Digits.")


def test_contradicted_cases_are_listed_with_their_effect():
    assert any(s.startswith("Contradicted for MLP on Digits: -15") for s in sentences(fewer=-0.15))


def test_views_that_disagree_are_listed_with_the_reason():
    found = sentences(fewer=0.15, best=(0.00316, 0.1), rates=sweeps.RATES[:-1])
    assert any("lies on the edge of the grid" in s and s.startswith("Inconclusive for MLP on Digits") for s in found)
    wide = sentences(fewer=0.15, best=(0.1, 3.16))
    assert any(s.startswith("MLP on Digits: the views disagree: ") and s.count("INCONCLUSIVE") == 1 for s in wide)


def test_runs_that_diverged_at_the_compared_rates_are_counted():
    def lost(norm: str, lr: float, seed: int) -> bool:
        return (norm, lr) == ("NoNorm", 0.1) and seed in (7, 9)

    (sentence,) = [s for s in sentences(fewer=0.15, diverged=lost) if "diverged" in s]
    assert sentence.startswith("MLP on Digits: 2 of ")
    assert sentence.endswith("runs without it diverged at learning rate 0.1, and count with the worst value.")


def test_seeds_with_the_opposite_sign_are_counted():
    def lost(norm: str, lr: float, seed: int) -> bool:
        return norm == "BatchNorm" and lr == 0.316 and seed == 7

    found = sentences(fewer=0.28, diverged=lost, seeds=30)
    assert any("in 1 of 26 seeds the difference goes the other way" in s for s in found)


@pytest.mark.parametrize(("fewer", "close"), [(0.0515, True), (0.048, True), (0.08, False)])
def test_intervals_close_to_the_smallest_effect_of_interest_are_listed(fewer, close):
    found = sentences(fewer=fewer, noise=0.001)
    assert any("ends close to the smallest effect of interest, 5" in s for s in found) == close


def test_missing_runs_are_the_reason_of_an_inconclusive_case():
    (sentence,) = sentences(fewer=0.15, missing=("BatchNorm", 0.316, 8))
    assert "runs incomplete" in sentence


def test_intervals_widened_by_the_grid_are_mentioned():
    assert any("moved out by a factor of 3.16" in s for s in sentences("higher_learning_rates", limits=(0.0316, 1.0)))
