from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bnstudy.claims.verdicts import ACROSS, CAPPED, COARSE, Verdict, as_json, judge, verdicts
from bnstudy.stats.intervals import bca_interval
from bnstudy.stats.sequential import anytime, anytime_interval, anytime_p
from scripts.coverage import DRAWS, verdicts_on_nothing
from tests import sweeps
from tests.stats.test_intervals import sample
from tests.sweeps import contrast_of

ALL = ("faster_convergence", "higher_learning_rates", "dead_relus")


def found(claim: str, view: str, **changes) -> Verdict:
    (one,) = [v for v in verdicts(sweeps.of(claims=(claim,), **changes)) if v.contrast.view == view]
    return one


@pytest.mark.parametrize("method", ["once", "repeated"])
@pytest.mark.parametrize(
    ("mean", "sd", "status"),
    [
        (1.0, 0.2, "SUPPORTED"),
        (-1.0, 0.2, "CONTRADICTED"),
        (0.0, 0.1, "NEGLIGIBLE"),
        (0.5, 0.5, "INCONCLUSIVE"),
        (0.0, 2.0, "INCONCLUSIVE"),
    ],
)
def test_the_status_follows_from_interval_and_delta(method, mean, sd, status):
    d = mean + sd * stats.zscore(sample(12))
    verdict = judge(contrast_of(d, **({"method": anytime(10)} if method == "repeated" else {})))
    assert verdict.status == status
    assert verdict.because == (ACROSS if status == "INCONCLUSIVE" else "")
    assert (verdict.low, verdict.high) == (bca_interval(d) if method == "once" else anytime_interval(d, 10))
    if method == "repeated":
        assert verdict.p == anytime_p(d, 10)


def test_few_seeds_are_inconclusive_with_the_number_to_add():
    verdict = judge(contrast_of([1.0, 1.1, 0.9], 0.1))
    assert (verdict.status, verdict.because, verdict.more) == ("INCONCLUSIVE", "3 of at least 10 seeds", 7)
    assert verdict.reason == "3 of at least 10 seeds: 7 more are needed"
    assert judge(contrast_of([1.0], 0.1)).result.endswith("1 seed (1 of at least 10 seeds: 9 more are needed).")


def test_an_obstacle_precedes_all_other_reasons():
    verdict = judge(contrast_of([1.0] * 12, 0.1, obstacle="runs are missing"))
    assert (verdict.status, verdict.because, verdict.more) == ("INCONCLUSIVE", "runs are missing", None)
    assert verdict.effect == 1.0


@pytest.mark.parametrize("d", [[], [1.0], [1.0, math.nan], [1.0, math.inf, 2.0]])
def test_fewer_than_two_finite_differences_have_no_interval(d):
    verdict = judge(contrast_of(d, min_seeds=2))
    assert (verdict.status, verdict.p, verdict.more) == ("INCONCLUSIVE", 1.0, 2 - len(d) if len(d) < 2 else None)
    assert all(map(math.isnan, (verdict.low, verdict.high, verdict.d_z)))


def test_an_infinite_interval_is_inconclusive():
    assert judge(contrast_of([1.0, 1.1, 0.9], 0.1, 2, method=anytime(2))).status == "INCONCLUSIVE"


def test_equal_differences_are_judged_by_their_value():
    assert judge(contrast_of([0.3] * 10, 0.1)).status == "SUPPORTED"
    assert judge(contrast_of([0.0] * 10, 0.1)).status == "NEGLIGIBLE"


def test_the_corrected_test_must_reject_too():
    contrast = contrast_of(1 + 0.1 * sample(10))
    assert judge(contrast, p_holm=0.04).status == "SUPPORTED"
    assert judge(contrast, p_holm=0.06).because == "the sign-flip test does not reject (p = 0.06 after correction)"
    repeated = judge(replace(contrast, method=anytime(10)), p_holm=0.06)
    assert repeated.because == "the anytime-valid test does not reject (p = 0.06 after correction)"


def test_slack_widens_the_interval_and_can_make_it_too_coarse():
    d = 1 + 0.1 * sample(12)
    plain, loose = judge(contrast_of(d, 0.1)), judge(contrast_of(d, 0.1, slack=0.5))
    assert (loose.low, loose.high) == (plain.low - 0.5, plain.high + 0.5)
    assert (loose.status, loose.effect) == ("SUPPORTED", plain.effect)
    too_coarse = judge(contrast_of(d, 0.1, slack=2.0))
    assert (too_coarse.status, too_coarse.because, too_coarse.more) == ("INCONCLUSIVE", COARSE, None)


def test_capped_values_rule_out_negligible_only():
    assert judge(contrast_of([0.0] * 12, 0.1, capped=True)).because == CAPPED
    assert judge(contrast_of([1.0] * 12, 0.1, capped=True)).status == "SUPPORTED"


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWS)
def test_at_most_one_in_twenty_null_studies_has_a_verdict(name):
    studies = 1000
    own_error = 2 * math.sqrt(0.05 * 0.95 / studies)
    assert verdicts_on_nothing(DRAWS[name], 10, studies, seed=2) <= 0.05 + own_error


@pytest.mark.parametrize("view", ["same_rate", "best_rate"])
@pytest.mark.parametrize(
    ("fewer", "noise", "status"),
    [
        (0.15, 0.01, "SUPPORTED"),
        (-0.15, 0.01, "CONTRADICTED"),
        (0.002, 0.01, "NEGLIGIBLE"),
        (0.05, 0.2, "INCONCLUSIVE"),
    ],
)
def test_a_claim_on_a_difference_is_judged(view, fewer, noise, status):
    verdict = found("dead_relus", view, fewer=fewer, noise=noise)
    assert verdict.status == status
    assert verdict.n == 10
    assert verdict.effect == pytest.approx(100 * fewer, abs=60 * noise)


@pytest.mark.parametrize(("faster", "status"), [(2.0, "SUPPORTED"), (0.5, "CONTRADICTED"), (1.0, "NEGLIGIBLE")])
def test_a_claim_on_a_ratio_is_judged(faster, status):
    verdict = found("faster_convergence", "best_rate", faster=faster)
    assert verdict.status == status
    assert as_json([verdict])[0]["effect"] == pytest.approx(faster, rel=0.05)


@pytest.mark.parametrize(
    ("limits", "status", "because"),
    [
        ((0.0316, 1.0), "SUPPORTED", ""),
        ((1.0, 0.0316), "CONTRADICTED", ""),
        ((0.316, 3.16), "SUPPORTED", ""),  # the largest tried: the effect is at least that
        ((0.316, 1.0), "INCONCLUSIVE", "too coarse"),
        ((0.316, 0.316), "INCONCLUSIVE", "too coarse"),
    ],
)
def test_learning_rates_are_known_up_to_a_step_of_the_grid(limits, status, because):
    verdict = found("higher_learning_rates", "all_rates", limits=limits, seeds=10)
    assert verdict.status == status
    assert because in verdict.because
    assert verdict.effect == pytest.approx(math.log(limits[1] / limits[0]))
    assert verdict.low == pytest.approx(verdict.effect - math.log(0.316 / 0.1), abs=0.01)


def test_diverged_runs_count_with_the_worst_value():
    def lost(norm: str, lr: float, seed: int) -> bool:
        return (norm, lr) == ("NoNorm", 0.1) and seed in (7, 9)

    plain, some = (found("dead_relus", "best_rate", **kw).contrast.d for kw in ({}, {"diverged": lost}))
    made = sweeps.Made()
    assert some[7] == pytest.approx(100 - 100 * made.dead("BatchNorm", 7))
    assert some.drop([7, 9]).equals(plain.drop([7, 9]))


def test_runs_that_never_reach_the_target_count_with_the_length_of_training():
    contrast = found("faster_convergence", "best_rate", faster=0.1).contrast
    without = 60 * math.log(0.8 / 0.045)  # where an exponential curve from 0.1 to 0.9 is 95% of 0.9
    assert (np.exp(contrast.d) * sweeps.STEPS).tolist() == pytest.approx([without] * 10, rel=0.05)
    assert len(contrast.d) == 10


def test_a_seed_with_both_values_at_the_bound_rules_out_negligible():
    def lost(norm: str, lr: float, seed: int) -> bool:  # noqa: ARG001
        return seed == 8

    verdict = found("dead_relus", "best_rate", diverged=lost)
    assert verdict.status == "INCONCLUSIVE"
    assert "at the bound" in verdict.because


@pytest.mark.parametrize(
    ("view", "changes", "because"),
    [
        ("best_rate", {"missing": ("BatchNorm", 0.316, 8)}, "BatchNorm: runs incomplete: 97 of 98"),
        ("best_rate", {"best": (0.1, 3.16)}, "the best learning rate with it, 3.16, lies on the edge of the grid"),
        ("best_rate", {"best": (0.00316, 0.1)}, "the best learning rate without it, 0.00316, lies on the edge"),
        ("same_rate", {"best": (0.00316, 0.1)}, "the best learning rate without it, 0.00316, lies on the edge"),
        ("best_rate", {"rates": sweeps.RATES[1:]}, "the grid has 6 learning rates, a fair choice needs 7"),
        ("best_rate", {"rates": (1e-5, 1e-4, 1e-3, 0.01, 0.1, 1, 10)}, "10 times apart"),
        ("best_rate", {"seeds": 13}, "9 of at least 10 seeds"),
        ("best_rate", {"seeds": 4}, "0 of at least 10 seeds"),
    ],
)
def test_a_contrast_that_breaks_the_protocol_is_inconclusive(view, changes, because):
    verdict = found("dead_relus", view, fewer=0.15, **changes)
    assert verdict.status == "INCONCLUSIVE"
    assert because in verdict.because


def test_the_edge_of_a_grid_does_not_matter_to_a_side_that_is_not_tuned():
    assert found("dead_relus", "same_rate", fewer=0.15, best=(0.1, 3.16)).status == "SUPPORTED"


def test_a_metric_that_was_not_measured_is_an_obstacle():
    study = sweeps.of(claims=("dead_relus",))
    blind = replace(study, metrics=study.metrics[study.metrics["metric"] != "dead_share"])
    assert {v.because for v in verdicts(blind)} == {"dead_units was not measured in 10 of 10 seeds"}


def test_a_study_without_one_of_the_sides_is_inconclusive():
    study = sweeps.of(claims=("dead_relus",))
    alone = replace(study, specs=study.specs[study.specs["norm"] == "NoNorm"])
    assert {v.because for v in verdicts(alone)} == {"no runs with it (norm=BatchNorm)"}


def test_the_method_follows_from_how_often_a_study_was_looked_at():
    study = sweeps.of(claims=("dead_relus",), fewer=0.1, noise=0.05)
    for looks, interval in (("once", bca_interval), ("repeated", lambda d: anytime_interval(d, 10))):
        for verdict in verdicts(replace(study, looks=looks)):
            assert (verdict.low, verdict.high) == interval(verdict.contrast.d)


def test_nothing_is_pooled_and_all_p_values_are_corrected_together():
    several = verdicts(sweeps.of(claims=ALL, models=("MLP", "VGG"), fewer=0.15, faster=2.0))
    assert len(several) == 2 * 5
    assert {(v.contrast.case.model, v.contrast.case.data) for v in several} == {("MLP", "Digits"), ("VGG", "Digits")}
    order = sorted(several, key=lambda v: v.p)
    by_hand = np.maximum.accumulate([min(1, v.p * (10 - i)) for i, v in enumerate(order)])
    assert [v.p_holm for v in order] == pytest.approx(by_hand.tolist())
    for verdict in several:
        model = verdict.contrast.case.model
        assert all(run_id.startswith(f"{model}-") for run_id in verdict.contrast.run_ids)


def test_a_verdict_names_its_evaluated_and_tuning_runs():
    contrast = found("dead_relus", "best_rate").contrast
    expected = {
        f"MLP-{norm}-{lr:g}-{s:02d}" for norm in ("NoNorm", "BatchNorm") for lr in sweeps.RATES for s in range(4)
    }
    expected |= {f"MLP-NoNorm-0.1-{s:02d}" for s in range(4, 14)} | {
        f"MLP-BatchNorm-0.316-{s:02d}" for s in range(4, 14)
    }
    assert set(contrast.run_ids) == expected


@pytest.mark.parametrize(
    ("claim", "views"),
    [
        ("dead_relus", ["each at its best, 0.316 with and 0.1 without", "same learning rate, 0.1"]),
        ("higher_learning_rates", ["over all learning rates"]),
    ],
)
def test_views_are_named_with_their_learning_rates(claim, views):
    assert [v.view for v in verdicts(sweeps.of(claims=(claim,)))] == views


def test_a_verdict_is_stated_in_a_sentence_with_its_reason():
    verdict = found("dead_relus", "best_rate", fewer=0.15, seeds=13)
    assert verdict.reason == "9 of at least 10 seeds: 1 more is needed"
    text = f"{verdict.view}: {verdict.interval} percentage points fewer dead units, 9 seeds ({verdict.reason})."
    assert verdict.sentence == f"INCONCLUSIVE: With batch normalization fewer ReLU units die. MLP on Digits, {text}"


def by_plain_pandas(study) -> dict[str, pd.Series]:
    """The differences of the three claims, each side at its best, by loops."""
    runs, metrics = study.runs, study.metrics
    tuning = runs[runs["seed"] < 4]
    best = {n: g.groupby("lr")["score"].mean().idxmax() for n, g in tuning.groupby("norm")}
    target = 0.95 * tuning[(tuning["norm"] == "NoNorm") & (tuning["lr"] == best["NoNorm"])]["val_accuracy"].mean()
    values: dict[tuple, dict] = {}
    for run in runs.itertuples():
        rows = metrics[metrics["run_id"] == run.run_id]
        if run.seed >= 4 and run.lr == best[run.norm]:
            curve = rows[rows["metric"] == "accuracy"].sort_values("step")
            a, t = curve["value"].tolist(), curve["step"].tolist()
            smooth = [np.mean(a[max(0, i - 1) : i + 2]) for i in range(len(a))]
            i = next((i for i, s in enumerate(smooth) if s >= target), None)
            when = run.steps
            if i is not None and not run.diverged:
                when = t[i - 1] + (target - smooth[i - 1]) / (smooth[i] - smooth[i - 1]) * (t[i] - t[i - 1])
            dead = 1.0 if run.diverged else rows[rows["metric"] == "dead_share"]["value"].item()
            values[run.norm, run.seed] = {"updates": when, "dead": 100 * dead}
    for norm, seed in {(r.norm, r.seed) for r in runs.itertuples()}:
        own = runs[(runs["norm"] == norm) & (runs["seed"] == seed)].sort_values("lr")
        tolerated = [r.lr for i, r in enumerate(own.itertuples()) if not own["diverged"].iloc[: i + 1].any()]
        values.setdefault((norm, seed), {})["rate"] = max(tolerated)
    evaluated, every = range(4, 14), range(14)
    plain, bn = ({s: values[n, s] for s in every} for n in ("NoNorm", "BatchNorm"))
    return {
        "faster_convergence": pd.Series({s: np.log(plain[s]["updates"] / bn[s]["updates"]) for s in evaluated}),
        "higher_learning_rates": pd.Series({s: np.log(bn[s]["rate"] / plain[s]["rate"]) for s in every}),
        "dead_relus": pd.Series({s: plain[s]["dead"] - bn[s]["dead"] for s in evaluated}),
    }


def test_three_verdicts_agree_with_plain_pandas():
    def lost(norm: str, lr: float, seed: int) -> bool:
        return norm == "NoNorm" and ((lr == 1.0 and seed % 3 == 0) or (lr == 0.1 and seed == 11))

    study = sweeps.of(claims=ALL, fewer=0.1, faster=1.6, noise=0.08, diverged=lost)
    expected = by_plain_pandas(study)
    by_claim = {v.contrast.claim.name: v for v in verdicts(study) if v.contrast.view != "same_rate"}
    for name, d in expected.items():
        verdict = by_claim[name]
        pd.testing.assert_series_equal(verdict.contrast.d, d, check_names=False)
        slack = math.log(0.316 / 0.1) if name == "higher_learning_rates" else 0
        low, high = bca_interval(d)
        assert verdict.low == pytest.approx(low - slack, abs=0.01)
        assert verdict.high == pytest.approx(high + slack, abs=0.01)
        test = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
        assert verdict.p == pytest.approx(test.pvalue)
        delta = 5 if name == "dead_relus" else math.log(1.25)
        assert verdict.status == ("SUPPORTED" if verdict.low > delta and verdict.p_holm <= 0.05 else "INCONCLUSIVE")
