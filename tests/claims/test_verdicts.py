from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bnstudy.claims.verdicts import (
    ACROSS,
    AT_BOUND,
    COARSE,
    ONLY_BOUND,
    WORST,
    Verdict,
    as_json,
    decide,
    judge,
    judge_all,
    verdicts,
)
from bnstudy.stats.means import ALPHA, confidence_interval, p_above
from bnstudy.stats.outliers import find_outlier
from bnstudy.stats.sequential import anytime, anytime_interval, anytime_p
from tests import sweeps
from tests.sweeps import contrast_of

ALL = ("faster_convergence", "higher_learning_rates", "dead_relus")


def sample(n: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0.4, 1, n)


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
    assert (verdict.low, verdict.high) == (confidence_interval(d) if method == "once" else anytime_interval(d, 10))
    assert (verdict.p <= ALPHA) == (status != "INCONCLUSIVE")


@pytest.mark.parametrize(
    ("mean", "hypothesis"),
    [
        (1.0, lambda d, p: p(d, 0.5)),  # at most delta
        (-1.0, lambda d, p: p(-d, 0.5)),  # at least -delta
        (0.1, lambda d, p: max(p(d, -0.5), p(-d, -0.5))),  # beyond delta on either side
    ],
)
def test_the_p_value_is_that_of_the_hypothesis_that_the_verdict_rejects(mean, hypothesis):
    d = mean + 0.2 * stats.zscore(sample(12))
    assert decide(d, 0.5)[1] == hypothesis(d, p_above)
    assert judge(contrast_of(d)).p == judge(contrast_of(d)).p_holm == hypothesis(d, p_above)
    assert decide(d, 0.5, method=anytime(10))[1] == hypothesis(d, anytime(10).p_above) <= ALPHA
    assert anytime(10).p_above(d, mean - 0.1) == anytime_p(d - (mean - 0.1), 10)
    assert anytime(10).p_above(d, mean + 0.1) == 1


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


def test_a_verdict_does_not_change_with_the_other_cases_of_the_report():
    strong, weak = contrast_of(1 + 0.1 * sample(12)), contrast_of(0.505 + 0.1 * stats.zscore(sample(12)))
    weak = replace(weak, d=weak.d + 0.065)
    alone = judge(weak)
    assert alone.status == "SUPPORTED"
    others = [replace(strong, study=f"study{i}") for i in range(20)]
    noise = [replace(contrast_of(5 * sample(12)), study=f"noise{i}") for i in range(20)]
    together = judge_all([weak, *others, *noise])[0]
    assert (together.status, together.p, alone.survives) == ("SUPPORTED", alone.p, True)
    assert together.p_holm > ALPHA
    assert not together.survives


def test_one_seed_that_decides_withholds_supported_and_negligible():
    d = np.array([1.0] * 11 + [5.0]) + 0.01 * sample(12)
    failed = {"with": (0, 12), "without": (1, 12)}
    for scale, status in ((1.0, "SUPPORTED"), (0.001, "NEGLIGIBLE")):
        verdict = judge(contrast_of(scale * d, failed=failed))
        assert decide(scale * d, 0.5)[0] == status
        assert (verdict.status, verdict.may_settle) == ("INCONCLUSIVE", True)
    assert verdict.because == (
        "one seed decides, as seed 11 carries 92% of the variance (failed: without it 1 of 12 runs, 0.2% to 38.5%)"
    )


def test_skewed_differences_withhold_a_verdict():
    d = np.array([1.0] * 10 + [4.0, 4.5])
    verdict = judge(contrast_of(d))
    assert verdict.because == f"few seeds decide, as the skew of the differences is {stats.skew(d, bias=False):.2g}"


def test_sides_near_the_smallest_value_there_is_cannot_be_negligibly_different():
    def of(with_: float) -> Verdict:
        values = pd.DataFrame({"with": [with_] * 12, "without": [with_ + 1.0] * 12})
        contrast = contrast_of(np.ones(12) + 0.01 * sample(12), delta=5, values=values)
        dead = {"metric": "dead_units", "better": "lower", "unit": "percentage points fewer dead units", "delta": 5}
        return judge(replace(contrast, claim=replace(contrast.claim, **dead)))

    assert of(20).status == "NEGLIGIBLE"
    assert of(0.5).because == (
        "there are few dead units on either side, 0.5% with it and 1.5% without, so they cannot differ by 5 percentage "
        "points"
    )


def test_a_claim_is_open_where_a_claim_that_it_requires_has_another_status():
    required, asked = contrast_of(0.01 * sample(12)), contrast_of(1 + 0.1 * sample(12))
    asked = replace(asked, claim=replace(asked.claim, name="asked", requires={"c": ["SUPPORTED"]}))
    found = judge_all([asked, required])[0]
    assert (found.status, found.may_settle) == ("INCONCLUSIVE", False)
    assert found.because == "the question only arises where c is SUPPORTED, and it is NEGLIGIBLE"
    assert judge_all([asked, replace(required, d=asked.d)])[0].status == "SUPPORTED"
    assert judge_all([asked])[0].because.endswith("and it has no verdict here")
    elsewhere = replace(required, d=asked.d, case=replace(required.case, with_=("LayerNorm",)))
    assert judge_all([asked, elsewhere])[0].because.endswith("and it has no verdict here")


NOISE = np.random.default_rng(1).permutation(stats.norm.ppf((np.arange(12) + 0.5) / 12))


@pytest.mark.parametrize(
    ("d", "fields", "expected"),
    [
        (5 + NOISE, {}, True),  # across the smallest effect of interest, 5
        (20 + NOISE, {}, False),  # decided
        (NOISE[:3], {}, True),
        (NOISE / 10, {"slack": 1}, False),
        (NOISE / 10, {"slack": 6}, False),  # within a step of the grid
        (5 + NOISE / 10, {"slack": 1}, False),
        (6 + 3 * NOISE, {"slack": 1}, True),
        (NOISE / 10, {"bounds": {("with", "at least"): 1}}, False),
        (5 + NOISE, {"bounds": {("with", "at least"): 1}}, True),
        (NOISE, {"obstacle": "the best learning rate lies on the edge of the grid"}, False),
        (NOISE[:3], {"obstacle": "the best learning rate lies on the edge of the grid", "may_pass": True}, True),
    ],
)
def test_more_seeds_may_settle_only_some_verdicts(d, fields, expected):
    assert judge(contrast_of(d, delta=5, method=anytime(10), **fields)).may_settle is expected


def test_slack_widens_the_interval_and_can_make_it_too_coarse():
    d = 1 + 0.1 * sample(12)
    plain, loose = judge(contrast_of(d, 0.1)), judge(contrast_of(d, 0.1, slack=0.5))
    assert (loose.low, loose.high) == (plain.low - 0.5, plain.high + 0.5)
    assert (loose.status, loose.effect) == ("SUPPORTED", plain.effect)
    too_coarse = judge(contrast_of(d, 0.1, slack=2.0))
    assert (too_coarse.status, too_coarse.because, too_coarse.more) == ("INCONCLUSIVE", COARSE, None)


def test_a_value_at_a_bound_on_either_side_rules_out_negligible_only():
    for side in ("with", "without"):
        assert judge(contrast_of([0.0] * 12, 0.1, bounds={(side, "at least"): 1})).because == AT_BOUND
    supported = judge(contrast_of([1.0] * 12, 0.1, bounds={("with", "at least"): 12}))
    assert (supported.status, supported.interval) == ("SUPPORTED", "at least 1.0 (1.0 to 1.0)")


def test_deviations_within_a_step_of_the_grid_withhold_nothing():
    d = np.array([1.0] * 11 + [1.5])
    assert judge(contrast_of(d, 0.1)).because.startswith("one seed decides")
    assert judge(contrast_of(d, 0.1, slack=0.5)).status == "SUPPORTED"


def test_claims_json_has_no_infinite_number():
    study = sweeps.of(claims=ALL, rates=(0.1,), seeds=1)
    found = as_json(verdicts(study))
    assert [row["slack"] for row in found if row["claim"] == "higher_learning_rates"] == [None]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize("claim", ["faster_convergence", "dead_relus"])
def test_what_no_number_is_known_of_is_null_in_claims_json(claim):
    verdict = replace(found(claim, "best_rate"), low=-math.inf, high=math.nan)
    assert math.isnan(verdict.contrast.at_one_rate)
    entry = as_json([verdict])[0]
    assert (entry["effect_at_one_rate"], entry["ci_low"], entry["ci_high"]) == (None, None, None)


def test_a_worst_value_rules_out_negligible_with_its_own_reason():
    assert judge(contrast_of([0.0] * 12, 0.1, bounds={("with", "worst"): 1})).because == WORST


def test_a_baseline_that_failed_gives_no_accuracy_to_reach():
    verdict = found("faster_convergence", "fixed_rate", rates=(1.78,))
    assert verdict.because == "14 of 14 runs without it diverged or did not learn, so there is no accuracy to reach"


def test_a_metric_that_cannot_choose_rates_was_not_measured():
    (verdict, _) = verdicts(sweeps.of(claims=("breaks_even",)))
    assert "seconds_to_target was not measured" in verdict.because
    assert not verdict.may_settle


@pytest.mark.parametrize(
    ("mean", "side", "status"),
    [(1.0, "with", "SUPPORTED"), (1.0, "without", "INCONCLUSIVE"), (-1.0, "with", "INCONCLUSIVE")],
)
def test_an_effect_that_may_be_smaller_than_its_bound_has_no_verdict(mean, side, status):
    verdict = judge(contrast_of(mean + 0.01 * NOISE, 0.1, bounds={(side, "at least"): 2}))
    assert verdict.status == status
    assert (verdict.because == ONLY_BOUND) == (status == "INCONCLUSIVE")


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
    assert verdict.n == 14
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
        ((0.178, 3.16), "SUPPORTED", ""),  # the largest tried: the effect is at least that
        ((0.316, 1.0), "INCONCLUSIVE", "too coarse"),
        ((0.316, 0.562), "INCONCLUSIVE", "too coarse"),
    ],
)
def test_learning_rates_are_known_up_to_a_step_of_the_grid(limits, status, because):
    verdict = found("higher_learning_rates", "all_rates", limits=limits, seeds=10)
    assert verdict.status == status
    assert because in verdict.because
    assert verdict.effect == pytest.approx(math.log(limits[1] / limits[0]))
    assert verdict.low == pytest.approx(verdict.effect - math.log(1.78), abs=0.01)


def test_diverged_runs_count_with_the_worst_value():
    def lost(norm: str, lr: float, seed: int) -> bool:  # noqa: ARG001
        return norm == "NoNorm" and seed in (7, 9)

    plain, some = (found("dead_relus", "best_rate", **kw).contrast for kw in ({}, {"diverged": lost}))
    made = sweeps.Made()
    assert some.d[7] == pytest.approx(100 - 100 * made.dead("BatchNorm", 7))
    assert some.d.drop([7, 9]).equals(plain.d.drop([7, 9]))
    assert some.failed == {"with": (0, 14), "without": (2, 14)}


def test_runs_that_never_reach_the_target_count_with_the_length_of_training():
    contrast = found("faster_convergence", "best_rate", faster=0.1).contrast
    without = 60 * math.log(0.8 / 0.045)  # where an exponential curve from 0.1 to 0.9 is 95% of 0.9
    assert (np.exp(contrast.d) * sweeps.STEPS).tolist() == pytest.approx([without] * 14, rel=0.05)
    assert contrast.bounds == {("with", "at least"): 14}


def test_a_seed_with_both_runs_diverged_rules_out_negligible():
    def lost(norm: str, lr: float, seed: int) -> bool:  # noqa: ARG001
        return seed == 8

    verdict = found("dead_relus", "best_rate", diverged=lost)
    assert verdict.status == "INCONCLUSIVE"
    assert verdict.because == WORST


@pytest.mark.parametrize(
    ("view", "changes", "because"),
    [
        ("best_rate", {"missing": ("BatchNorm", 0.316, 8)}, "BatchNorm: runs incomplete: 181 of 182"),
        ("best_rate", {"best": (0.1, 3.16)}, "the best learning rate with it, 3.16, lies on the edge of the grid"),
        ("best_rate", {"best": (0.00316, 0.1)}, "the best learning rate without it, 0.00316, lies on the edge"),
        ("same_rate", {"best": (0.00316, 0.1)}, "the best learning rate without it, 0.00316, lies on the edge"),
        ("best_rate", {"rates": sweeps.RATES[4:10]}, "the grid has 6 learning rates, a fair choice needs 7"),
        ("best_rate", {"rates": (1e-5, 1e-4, 1e-3, 0.01, 0.1, 1, 10)}, "10 times apart"),
        (
            "best_rate",
            {"rates": sweeps.RATES[::2]},
            "the neighbours of the best learning rate with it, 0.316, are 3.16",
        ),
        ("best_rate", {"seeds": 9}, "9 of at least 10 seeds"),
        ("best_rate", {"seeds": 1}, "1 of at least 10 seeds"),
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
    blind = replace(study, metrics=study.metrics[study.metrics["metric"] != "died_share"])
    assert {v.because for v in verdicts(blind)} == {"units_that_died was not measured in 14 of 14 seeds"}


def test_a_study_without_one_of_the_sides_is_inconclusive():
    study = sweeps.of(claims=("dead_relus",))
    alone = replace(study, specs=study.specs[study.specs["norm"] == "NoNorm"])
    assert {v.because for v in verdicts(alone)} == {"no runs with it (norm=BatchNorm)"}


def test_the_method_follows_from_how_often_a_study_was_looked_at():
    study = sweeps.of(claims=("dead_relus",), fewer=0.1, noise=0.05)
    for looks, interval in (("once", confidence_interval), ("repeated", lambda d: anytime_interval(d, 10))):
        for verdict in verdicts(replace(study, looks=looks)):
            assert (verdict.low, verdict.high) == interval(verdict.contrast.d)


def test_nothing_is_pooled_and_all_p_values_are_corrected_together():
    several = verdicts(sweeps.of(claims=ALL, models=("MLP", "VGG"), fewer=0.15, faster=2.0))
    assert len(several) == 2 * 5
    assert {(v.contrast.case.model, v.contrast.case.data) for v in several} == {("MLP", "Digits"), ("VGG", "Digits")}
    tests = {(v.contrast.claim.name, v.case, *v.contrast.d): v for v in several}  # two views may be the same test
    assert len(tests) == 2 * 4
    order = sorted(tests.values(), key=lambda v: v.p)
    by_hand = np.maximum.accumulate([min(1, v.p * (len(tests) - i)) for i, v in enumerate(order)])
    assert [v.p_holm for v in order] == pytest.approx(by_hand.tolist())
    for verdict in several:
        model = verdict.contrast.case.model
        assert all(run_id.startswith(f"{model}-") for run_id in verdict.contrast.run_ids)


def test_a_verdict_names_all_runs_that_choose_its_learning_rates():
    study = sweeps.of(claims=("dead_relus",))
    assert {*verdicts(study)[0].contrast.run_ids} == {*study.runs["run_id"]}


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
    verdict = found("dead_relus", "best_rate", fewer=0.15, seeds=9)
    assert verdict.reason == "9 of at least 10 seeds: 1 more is needed"
    text = f"{verdict.view}: 15 percentage points fewer units that died (14 to 16), 9 seeds ({verdict.reason})."
    assert verdict.sentence == f"INCONCLUSIVE: With batch normalization fewer ReLU units die. MLP on Digits, {text}"


def by_plain_pandas(study) -> dict[str, pd.Series]:
    """The differences of five claims, each side at its best, by loops."""
    runs, metrics, every = study.runs, study.metrics, range(14)
    score = runs.pivot(index=["norm", "lr"], columns="seed", values="score")
    baseline = runs[(runs["norm"] == "NoNorm") & (runs["lr"] == score.loc["NoNorm"].mean(axis=1).idxmax())]
    target = 0.95 * baseline["val_accuracy"].mean()
    values: dict[tuple, dict] = {}
    for run in runs.itertuples():
        rows = metrics[metrics["run_id"] == run.run_id]
        curve = rows[rows["metric"] == "accuracy"].sort_values("step")
        a, t = curve["value"].tolist(), curve["step"].tolist()
        smooth = [np.mean(a[max(0, i - 1) : i + 2]) for i in range(len(a))]
        i = next((i for i, s in enumerate(smooth) if s >= target), None)
        when = run.steps
        if i is not None and not run.diverged:
            when = t[i - 1] + (target - smooth[i - 1]) / (smooth[i] - smooth[i - 1]) * (t[i] - t[i - 1])
        dead = 1.0 if run.diverged else rows[(rows["metric"] == "died_share") & (rows["step"] > 0)]["value"].item()
        values[run.norm, run.lr, run.seed] = {
            "log updates": np.log(when),
            "dead": 100 * dead,
            "test": run.test_accuracy,
        }
    table = pd.DataFrame(values).T.rename_axis(["norm", "lr", "seed"])

    def chosen(norm: str, seed: int, metric: str) -> float:
        """The metric at the rate that is best for the other seeds: by its own value, or by accuracy."""
        own = -table["log updates"].unstack() if metric == "log updates" else score
        best = own.loc[norm].drop(columns=seed).mean(axis=1).idxmax()
        return table.loc[(norm, best, seed), metric]

    def tolerated(norm: str, seed: int) -> float:
        own = runs[(runs["norm"] == norm) & (runs["seed"] == seed)].sort_values("lr")
        return max(r.lr for i, r in enumerate(own.itertuples()) if not own["diverged"].iloc[: i + 1].any())

    def width(norm: str, seed: int) -> float:
        own = runs[(runs["norm"] == norm) & (runs["seed"] == seed)].sort_values("lr")
        rates, good = (
            own["lr"].tolist(),
            (own["test_accuracy"] >= own.loc[own["score"].idxmax(), "test_accuracy"] - 0.01).tolist(),
        )
        first = last = own["score"].tolist().index(own["score"].max())
        while first > 0 and good[first - 1]:
            first -= 1
        while last < len(rates) - 1 and good[last + 1]:
            last += 1
        return np.log10(rates[last] / rates[first])

    def differences(metric: str) -> pd.Series:
        return pd.Series({s: chosen("NoNorm", s, metric) - chosen("BatchNorm", s, metric) for s in every})

    return {
        "faster_convergence": differences("log updates"),
        "higher_learning_rates": pd.Series(
            {s: np.log(tolerated("BatchNorm", s) / tolerated("NoNorm", s)) for s in every}
        ),
        "wider_learning_rates": pd.Series({s: width("BatchNorm", s) - width("NoNorm", s) for s in every}),
        "dead_relus": differences("dead"),
        "regularizes": -100 * differences("test"),
    }


def test_five_verdicts_agree_with_plain_pandas():
    def lost(norm: str, lr: float, seed: int) -> bool:
        return norm == "NoNorm" and ((lr >= 0.562 and seed % 3 == 0) or (lr == 0.1 and seed == 11))

    claims = (*ALL, "wider_learning_rates", "regularizes")
    study = sweeps.of(claims=claims, fewer=0.1, faster=1.6, noise=0.08, diverged=lost)
    noise = 0.02 * np.random.default_rng(0).normal(size=len(study.runs))
    runs = study.runs.assign(
        test_accuracy=study.runs["test_accuracy"] + noise, score=study.runs["score"] - noise * (study.runs["seed"] % 3)
    )
    study = replace(study, runs=runs)
    expected = by_plain_pandas(study)
    by_claim = {v.contrast.claim.name: v for v in verdicts(study) if v.contrast.view != "same_rate"}
    for name, d in expected.items():
        verdict = by_claim[name]
        pd.testing.assert_series_equal(verdict.contrast.d, d, check_names=False)
        slack = {"higher_learning_rates": math.log(1.78), "wider_learning_rates": 0.5}.get(name, 0)
        low, high = stats.ttest_1samp(d, 0).confidence_interval()  # the interval is never narrower
        assert verdict.low <= low - slack + 0.01
        assert verdict.high >= high + slack - 0.01
        deltas = {"dead_relus": 5, "higher_learning_rates": math.log(2), "wider_learning_rates": 0.5, "regularizes": 1}
        delta = deltas.get(name, math.log(1.25))
        assert verdict.status == ("SUPPORTED" if verdict.low > delta and not find_outlier(d) else "INCONCLUSIVE")
        assert (verdict.p <= 0.05) == (verdict.low > delta)
        if verdict.low > 0:  # closest to rejecting an effect of at most delta
            assert verdict.p >= 2 * stats.ttest_1samp(d, delta + slack, alternative="greater").pvalue - 1e-9


@pytest.mark.parametrize(("name", "is_refused"), [("faster_convergence", True), ("dead_relus", False)])
def test_a_claim_about_whole_courses_of_training_has_no_verdict_on_runs_that_stopped_early(name, is_refused):
    study = sweeps.of(claims=(name,))
    stopped = replace(study, runs=study.runs.assign(stopped_step=[40, *[None] * (len(study.runs) - 1)]))
    sentence = "updates_to_target is of whole courses of training; 1 of "
    assert any(sentence in v.because and v.because.endswith("stopped early") for v in verdicts(stopped)) is is_refused
    assert not any(sentence in v.because for v in verdicts(study))
