from __future__ import annotations

from dataclasses import replace

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
    assert sentence.startswith("Negligible for VGG: ")
    assert sentence.endswith("while it is supported for MLP.")


def test_contradicted_cases_are_listed_with_their_effect():
    assert any(s.startswith("Contradicted: 15 percentage points more units that died") for s in sentences(fewer=-0.15))


def test_views_that_disagree_are_listed_with_the_reason():
    found = sentences(fewer=0.15, best=(0.00316, 0.1), rates=sweeps.RATES[:-1])
    assert any("lies on the edge of the grid" in s and s.startswith("Inconclusive: ") for s in found)
    wide = sentences(fewer=0.15, best=(0.1, 3.16))
    assert any(s.startswith("The views disagree: ") and s.count("INCONCLUSIVE") == 1 for s in wide)


def test_runs_that_failed_at_the_compared_rates_are_counted_with_an_exact_interval():
    def lost(norm: str, lr: float, seed: int) -> bool:  # noqa: ARG001
        return norm == "NoNorm" and seed in (7, 9)

    (sentence,) = [s for s in sentences(fewer=0.15, diverged=lost) if "diverged or" in s]
    assert sentence == (
        "Runs diverged or did not learn: without it 2 of 14 runs, 1.8% to 42.8%. In accuracies both count as guessing, "
        "and in steps to a target with the whole length of training. Elsewhere diverged runs have the worst value, and "
        "runs that did not learn the measured one."
    )


def test_the_effect_at_one_rate_for_all_counts_only_where_other_digits_are_shown():
    (one,) = [v for v in verdicts(sweeps.of(claims=("dead_relus",), fewer=0.15)) if v.contrast.is_primary]

    def about_one_rate(effect: float) -> list[str]:
        verdict = replace(one, contrast=replace(one.contrast, at_one_rate=effect))
        return [s for s in find_counterevidence([verdict]) if "With one rate for all" in s]

    assert about_one_rate(one.effect + 0.001) == []
    (sentence,) = about_one_rate(7.1)
    assert sentence.endswith("the effect is 7.1 points fewer units that died.")


def test_seeds_with_the_opposite_sign_are_counted():
    found = sentences("faster_convergence", faster=2.0, seeds=30, noise=0.4)
    assert any(s == "In some seeds the difference goes the other way: 5 of 30." for s in found)


@pytest.mark.parametrize(("fewer", "close"), [(0.0515, True), (0.048, True), (0.08, False)])
def test_intervals_close_to_the_smallest_effect_of_interest_are_listed(fewer, close):
    found = sentences(fewer=fewer, noise=0.001)
    assert (
        any(
            "ends close to the smallest effect of interest: " in s and "against 5 percentage points" in s for s in found
        )
        == close
    )


def test_a_close_interval_against_the_claim_is_turned_round_like_the_effect():
    (close,) = [s for s in sentences(fewer=-0.0515, noise=0.001) if "ends close to" in s]
    assert close.endswith(": 5.2 percentage points more units that died (5.1 to 5.3) against 5 percentage points.")


def test_missing_runs_are_the_reason_of_an_inconclusive_case():
    found = sentences(fewer=0.15, missing=("BatchNorm", 0.316, 8))
    assert "runs incomplete" in found[0]
    assert "Learning rates are left out, as they were not tried with all seeds: 0.316 with it." in found


def test_intervals_widened_by_the_grid_are_mentioned():
    assert any("moved out by a factor of 1.78" in s for s in sentences("higher_learning_rates", limits=(0.0316, 1.0)))


def test_values_at_a_bound_are_counted():
    found = sentences("higher_learning_rates", limits=(0.0316, 3.16))
    assert (
        "Only a bound is known of the largest tolerated rate and of the effect: with it at least the value measured in "
        "14 of 14 seeds."
    ) in found


def test_verdicts_that_the_number_of_cases_may_explain_are_listed():
    (verdict, *_) = verdicts(sweeps.of(claims=("dead_relus",), fewer=0.15))
    found = find_counterevidence([replace(verdict, p=0.01, p_holm=0.2)])
    assert found == ["Does not survive the correction for the number of cases in this report: p = 0.01, 0.2 after it."]


def test_a_verdict_at_one_learning_rate_says_so():
    assert sentences(fewer=0.15, rates=(0.1,)) == [
        "Only one learning rate was tried (at a fixed learning rate, 0.1): at its own best rate each side may do "
        "better."
    ]


def test_too_few_seeds_are_said_once_with_what_else_is_missing():
    first, second = sentences(seeds=3, rates=(0.0316, 0.1, 0.316))
    assert first.startswith(
        "Too few seeds for a verdict: 3 of at least 10. With 3 seeds 0.25 is the smallest p there is"
    )
    assert second.startswith("More seeds alone would not do: the grid has 3 learning rates, a fair choice needs 7")


def test_cases_are_named_by_what_they_do_not_share():
    both = [
        *verdicts(sweeps.of(claims=("dead_relus",), fewer=-0.15)),
        *verdicts(sweeps.of(claims=("dead_relus",), fewer=-0.15, models=("VGG",))),
    ]
    assert find_counterevidence(both)[0].startswith("Contradicted for MLP: 15 percentage points more units that died")
