from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bnstudy.claims.verdicts import Verdict, as_json, rows, verdicts
from bnstudy.stats.intervals import bca_interval
from tests import sweeps

ALL = ("faster_convergence", "higher_learning_rates", "dead_relus")


def found(claim: str, view: str, **changes) -> Verdict:
    (one,) = [v for v in verdicts(sweeps.of(claims=(claim,), **changes)) if v.contrast.view == view]
    return one


# --------------------------------------------------------------------------------------------------- the verdicts


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
def test_differences(view, fewer, noise, status):
    judged = found("dead_relus", view, fewer=fewer, noise=noise).judged
    assert judged.status == status
    assert judged.n == 10
    assert judged.effect == pytest.approx(100 * fewer, abs=60 * noise)


@pytest.mark.parametrize(("faster", "status"), [(2.0, "SUPPORTED"), (0.5, "CONTRADICTED"), (1.0, "NEGLIGIBLE")])
def test_ratios(faster, status):
    verdict = found("faster_convergence", "best_rate", faster=faster)
    assert verdict.judged.status == status
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
    judged = found("higher_learning_rates", "all_rates", limits=limits, seeds=10).judged
    assert judged.status == status
    assert because in judged.because
    assert judged.effect == pytest.approx(math.log(limits[1] / limits[0]))
    assert judged.low == pytest.approx(judged.effect - math.log(0.316 / 0.1), abs=0.01)


def test_diverged_runs_count_as_the_worst():
    def lost(norm: str, lr: float, seed: int) -> bool:
        return (norm, lr) == ("NoNorm", 0.1) and seed in (7, 9)

    plain, some = (found("dead_relus", "best_rate", **kw).contrast.d for kw in ({}, {"diverged": lost}))
    made = sweeps.Made()
    assert some[7] == pytest.approx(100 - 100 * made.dead("BatchNorm", 7))
    assert some.drop([7, 9]).equals(plain.drop([7, 9]))


def test_runs_that_never_get_there_count_with_the_length_of_training():
    contrast = found("faster_convergence", "best_rate", faster=0.1).contrast
    without = 60 * math.log(0.8 / 0.045)  # where an exponential curve from 0.1 to 0.9 is 95% of 0.9
    assert (np.exp(contrast.d) * sweeps.STEPS).tolist() == pytest.approx([without] * 10, rel=0.05)
    assert len(contrast.d) == 10


def test_both_at_the_bound_is_not_negligible():
    def lost(norm: str, lr: float, seed: int) -> bool:  # noqa: ARG001
        return seed == 8

    judged = found("dead_relus", "best_rate", diverged=lost).judged
    assert judged.status == "INCONCLUSIVE"
    assert "at the bound" in judged.because


# --------------------------------------------------------------------------------------------- what forbids a verdict


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
def test_a_claim_is_not_judged_on_less_than_the_protocol(view, changes, because):
    judged = found("dead_relus", view, fewer=0.15, **changes).judged
    assert judged.status == "INCONCLUSIVE"
    assert because in judged.because


def test_the_edge_does_not_matter_to_who_is_not_tuned():
    assert found("dead_relus", "same_rate", fewer=0.15, best=(0.1, 3.16)).judged.status == "SUPPORTED"


def test_too_few_seeds_say_how_many_more():
    assert found("dead_relus", "best_rate", fewer=0.15, seeds=8).judged.more == 6
    (row,) = rows([found("dead_relus", "best_rate", fewer=0.15, seeds=13)])
    assert row.reason == "9 of at least 10 seeds; about 1 more seed would settle it"


def test_what_was_not_measured_is_said():
    study = sweeps.of(claims=("dead_relus",))
    blind = replace(study, metrics=study.metrics[study.metrics["metric"] != "dead_share"])
    assert {v.judged.because for v in verdicts(blind)} == {"dead_units was not measured in 10 of 10 seeds"}


def test_a_study_without_the_other_side_says_so():
    study = sweeps.of(claims=("dead_relus",))
    alone = replace(study, specs=study.specs[study.specs["norm"] == "NoNorm"])
    assert {v.judged.because for v in verdicts(alone)} == {"no runs with it (norm=BatchNorm)"}


# ------------------------------------------------------------------------------------------------------ all together


def test_nothing_is_pooled_and_all_are_corrected_together():
    several = verdicts(sweeps.of(claims=ALL, models=("MLP", "VGG"), fewer=0.15, faster=2.0))
    assert len(several) == 2 * 5
    assert {(v.contrast.pair.model, v.contrast.pair.data) for v in several} == {("MLP", "Digits"), ("VGG", "Digits")}
    order = sorted(several, key=lambda v: v.judged.p)
    by_hand = np.maximum.accumulate([min(1, v.judged.p * (10 - i)) for i, v in enumerate(order)])
    assert [v.judged.p_holm for v in order] == pytest.approx(by_hand.tolist())
    for verdict in several:
        model = verdict.contrast.pair.model
        assert all(run_id.startswith(f"{model}-") for run_id in verdict.contrast.run_ids)


def test_the_runs_of_a_verdict_are_the_evaluated_and_the_tuning_ones():
    contrast = found("dead_relus", "best_rate").contrast
    expected = {
        f"MLP-{norm}-{lr:g}-{s:02d}" for norm in ("NoNorm", "BatchNorm") for lr in sweeps.RATES for s in range(4)
    }
    expected |= {f"MLP-NoNorm-0.1-{s:02d}" for s in range(4, 14)} | {
        f"MLP-BatchNorm-0.316-{s:02d}" for s in range(4, 14)
    }
    assert set(contrast.run_ids) == expected


def test_what_is_written_is_json_and_the_same_again():
    texts = {json.dumps(as_json(verdicts(sweeps.of(claims=ALL))), allow_nan=False) for _ in range(2)}
    assert len(texts) == 1


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
        borne = [r.lr for i, r in enumerate(own.itertuples()) if not own["diverged"].iloc[: i + 1].any()]
        values.setdefault((norm, seed), {})["rate"] = max(borne)
    evaluated, every = range(4, 14), range(14)
    plain, bn = ({s: values[n, s] for s in every} for n in ("NoNorm", "BatchNorm"))
    return {
        "faster_convergence": pd.Series({s: np.log(plain[s]["updates"] / bn[s]["updates"]) for s in evaluated}),
        "higher_learning_rates": pd.Series({s: np.log(bn[s]["rate"] / plain[s]["rate"]) for s in every}),
        "dead_relus": pd.Series({s: plain[s]["dead"] - bn[s]["dead"] for s in evaluated}),
    }


def test_three_verdicts_by_plain_pandas():
    def lost(norm: str, lr: float, seed: int) -> bool:
        return norm == "NoNorm" and ((lr == 1.0 and seed % 3 == 0) or (lr == 0.1 and seed == 11))

    study = sweeps.of(claims=ALL, fewer=0.1, faster=1.6, noise=0.08, diverged=lost)
    expected = by_plain_pandas(study)
    judged = {v.contrast.claim.name: v for v in verdicts(study) if v.contrast.view != "same_rate"}
    for name, d in expected.items():
        contrast, verdict = judged[name].contrast, judged[name].judged
        pd.testing.assert_series_equal(contrast.d, d, check_names=False)
        slack = math.log(0.316 / 0.1) if name == "higher_learning_rates" else 0
        low, high = bca_interval(d)
        assert verdict.low == pytest.approx(low - slack, abs=0.01)
        assert verdict.high == pytest.approx(high + slack, abs=0.01)
        test = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
        assert verdict.p == pytest.approx(test.pvalue)
        delta = 5 if name == "dead_relus" else math.log(1.25)
        assert verdict.status == ("SUPPORTED" if verdict.low > delta and verdict.p_holm <= 0.05 else "INCONCLUSIVE")
