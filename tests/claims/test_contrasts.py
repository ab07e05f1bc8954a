"""Contrasts of all designs, against loops over the runs."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bnstudy.claims.arms import LABELS, label
from bnstudy.claims.claim import Claim, claim_of
from bnstudy.claims.contrasts import SIDES, Contrast, contrasts
from bnstudy.claims.frames import StudyData
from bnstudy.claims.verdicts import describe_rates, judge
from tests import sweeps
from tests.sweeps import NODE

RATES = (0.00316, 0.01, 0.0316, 0.0562, 0.1, 0.178, 0.316, 0.562, 1.0, 3.16)
"""As after the second pass."""

SEEDS = 14
BEST = {"NoNorm": 0.1, "BatchNorm": 0.316}


def made(column: str, values: list, norms: tuple[str, ...] = ("NoNorm", "BatchNorm"), seed: int = 0) -> StudyData:
    """Accuracies that decrease away from the norm's best rate, with noise; the highest depends on norm and value."""
    rng = np.random.default_rng(seed)
    cells = {key: rng.uniform(0.6, 0.9) for key in itertools.product(norms, values)}
    rows = []
    for norm, value, lr, seed in itertools.product(norms, values, RATES, range(SEEDS)):
        accuracy = cells[norm, value] - 0.05 * np.log10(lr / BEST[norm]) ** 2 + 0.01 * rng.normal()
        rows.append(
            {
                "model": "MLP", "data": "Digits", "norm": norm, column: value, "lr": lr, "seed": seed, "steps": 100,
                "test_accuracy": accuracy + 0.005 * rng.normal(), "score": accuracy, "best_accuracy": accuracy,
                "val_accuracy": accuracy, "diverged": False, "counts_as_guessing": False, "chance": 0.1,
            }
        )  # fmt: skip
    frame = pd.DataFrame(rows)
    frame.insert(0, "run_id", [f"r{i:05d}" for i in range(len(frame))])
    specs = label(frame[["run_id", "model", "data", "norm", column, "lr", "seed"]])
    runs = frame.merge(specs[["run_id", *LABELS]], on="run_id")
    empty = pd.DataFrame({"run_id": [], "step": [], "split": [], "metric": [], "layer": [], "value": []})
    return StudyData("made", "Is it?", "quick", (), tuple(frame["run_id"]), (), specs, runs, empty, empty, {})


def claim(**changes) -> Claim:
    node = {**NODE, "views": ["best_rate"], **changes}
    return claim_of({key: value for key, value in node.items() if value is not ...}, "c")


def by_loops(study: StudyData, column: str, score: str = "score") -> dict[tuple[str, object], dict[int, pd.Series]]:
    """By norm and value the run of each seed, at the rate that is best for all other seeds."""
    found = {}
    for (norm, value), runs in study.runs.groupby(["norm", column]):
        found[norm, value] = {}
        for seed in range(SEEDS):
            others = runs[runs["seed"] != seed]
            means = {lr: np.mean(own[score].tolist()) for lr, own in others.groupby("lr")}
            best = max(means, key=means.__getitem__)
            found[norm, value][seed] = runs[(runs["lr"] == best) & (runs["seed"] == seed)].iloc[0]
    return found


def only(study: StudyData, about: Claim) -> Contrast:
    (one,) = contrasts(study, about)
    return one


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_an_interaction_is_a_difference_of_differences(better):
    study = made("batch_size", [4, 32])
    contrast = only(study, claim(across={"batch_size": 32}, better=better))
    runs, sign = by_loops(study, "batch_size"), 1 if better == "higher" else -1
    accuracy = {key: {s: 100 * run["test_accuracy"] for s, run in own.items()} for key, own in runs.items()}
    for seed in range(SEEDS):
        effect = {b: accuracy["BatchNorm", b][seed] - accuracy["NoNorm", b][seed] for b in (4, 32)}
        assert contrast.d[seed] == pytest.approx(sign * (effect[4] - effect[32]))
        assert contrast.values.loc[seed].tolist() == pytest.approx(
            [accuracy[n, 4][seed] for n in ("BatchNorm", "NoNorm")]
        )
    assert contrast.case.setting == "batch_size=4 against 32"
    assert contrast.obstacle == ""
    assert {run["run_id"] for own in runs.values() for run in own.values()} <= set(contrast.run_ids)


def test_a_reference_is_subtracted_from_each_seed():
    study = made("batch_size", [32])
    contrast = only(study, claim(without=..., reference=10))
    expected = {s: 100 * run["test_accuracy"] - 10 for s, run in by_loops(study, "batch_size")["BatchNorm", 32].items()}
    assert contrast.d.to_dict() == pytest.approx(expected)
    assert (contrast.rates["without"], math.isnan(contrast.rate_of("without"))) == ({}, True)


def test_the_sides_are_known_by_their_norms():
    study, turned = made("batch_size", [32]), {"with": {"norm": "NoNorm"}, "without": {"norm": "BatchNorm"}}
    plain, of_reference, other = (only(study, claim(**c)) for c in ({}, {"without": ..., "reference": 10}, turned))
    assert plain.norms == {"with": "BatchNorm", "without": "NoNorm"}
    assert [plain.name_of(side) for side in SIDES] == ["with it", "without it"]
    assert (of_reference.norms, of_reference.name_of("with")) == ({"with": "BatchNorm"}, "with it")
    assert [other.name_of(side) for side in SIDES] == ["without normalization", "with BatchNorm"]
    best = {side: describe_rates(other.rates[side]) for side in SIDES}
    assert judge(other).view.endswith(f"{best['with']} without normalization and {best['without']} with BatchNorm")


def test_several_families_of_a_side_give_one_number_per_seed():
    values = (0.01, 0.1, 1.0)
    study = made("std", [*values])
    contrast = only(study, claim(metric="spread_of_accuracy", over=["std"], better="lower"))
    runs = by_loops(study, "std")
    spread: dict[str, list[float]] = {norm: [] for norm in BEST}
    for norm, seed in itertools.product(BEST, range(SEEDS)):
        reached = {v: [100 * runs[norm, v][s]["best_accuracy"] for s in range(SEEDS)] for v in values}
        others = {v: np.mean([a for s, a in enumerate(own) if s != seed]) for v, own in reached.items()}
        best, worst = max(others, key=others.__getitem__), min(others, key=others.__getitem__)
        spread[norm].append(reached[best][seed] - reached[worst][seed])
    assert contrast.d.tolist() == pytest.approx([a - b for a, b in zip(*spread.values(), strict=True)])


def test_each_case_and_view_is_a_contrast():
    study = made("batch_size", [8, 32])
    found = contrasts(study, claim(views=["best_rate", "same_rate"]))
    assert [(c.case.setting, c.view) for c in found] == [
        (f"batch_size={b}", view) for b in (8, 32) for view in ("best_rate", "same_rate")
    ]
    runs = by_loops(study, "batch_size")
    chosen = {norm: Counter(run["lr"] for run in runs[norm, 8].values()) for norm in BEST}
    assert found[0].rates == {"with": chosen["BatchNorm"], "without": chosen["NoNorm"]}
    assert found[1].rates == {"with": chosen["NoNorm"], "without": chosen["NoNorm"]}
    assert found[0].rate_of("with") == chosen["BatchNorm"].most_common(1)[0][0]
    assert sum(found[0].rates["with"].values()) == SEEDS


def test_a_side_of_which_all_runs_diverged_is_an_obstacle():
    study = made("std", [0.01, 0.1, 1.0])
    lost = study.runs["norm"] == "NoNorm"
    outcomes = {c: study.runs[c].mask(lost, 0.1) for c in ("score", "best_accuracy", "val_accuracy", "test_accuracy")}
    about = claim(metric="spread_of_accuracy", over=["std"], better="lower")
    contrast = only(replace(study, runs=study.runs.assign(counts_as_guessing=lost, **outcomes)), about)
    assert contrast.obstacle == "every run without it diverged or did not learn, and all are equally bad"


@pytest.mark.parametrize("norms", [["NoNorm"], ["NoNorm", "BatchNorm"]])
def test_sides_over_different_values_are_an_obstacle(norms):
    study = made("std", [0.01, 0.1])
    kept = ~((study.specs["std"] == 0.01) & study.specs["norm"].isin(norms))
    ids = study.specs.loc[kept, "run_id"]
    runs = study.runs[study.runs["run_id"].isin(ids)]
    some = replace(study, specs=study.specs[kept], runs=runs, planned=tuple(ids))
    contrast = only(some, claim(metric="spread_of_accuracy", over=["std"], better="lower"))
    assert "both sides must have the same values of std, two or more" in contrast.obstacle


def test_values_at_a_bound_are_counted_by_side():
    study = made("batch_size", [32])
    lost = study.runs.assign(counts_as_guessing=True, score=0.1)
    assert only(replace(study, runs=lost), claim(without=..., reference=10)).bounds == {("with", "worst"): SEEDS}


@pytest.mark.parametrize(
    ("better", "bounds", "qualifier"),
    [
        ("higher", {("with", "at least"): 3}, "at least"),
        ("higher", {("without", "at least"): 3}, "at most"),
        ("lower", {("without", "at least"): 3}, "at least"),  # of steps to a target that it never reached
        ("higher", {("without", "at most"): 1, ("with", "at least"): 2}, "at least"),
        ("higher", {("without", "at least"): 1, ("with", "at least"): 2}, ""),
        ("higher", {("with", "worst"): 2}, ""),
    ],
)
def test_an_effect_of_values_at_a_bound_is_at_least_or_at_most_the_number(better, bounds, qualifier):
    contrast = only(made("batch_size", [32]), claim(better=better))
    assert replace(contrast, bounds=bounds).qualifier == qualifier


def test_a_case_with_one_learning_rate_is_compared_at_it_alone():
    study = made("batch_size", [32])
    some = {name: frame[frame["lr"] == 0.1] for name, frame in (("specs", study.specs), ("runs", study.runs))}
    contrast = only(replace(study, **some, planned=tuple(some["specs"]["run_id"])), claim(views=["same_rate"]))
    assert (contrast.view, contrast.is_primary, contrast.obstacle) == ("fixed_rate", True, "")
    assert contrast.rates == {"with": {0.1: SEEDS}, "without": {0.1: SEEDS}}
    accuracy = some["runs"].pivot(index="seed", columns="norm", values="test_accuracy")
    assert contrast.d.tolist() == pytest.approx((100 * (accuracy["BatchNorm"] - accuracy["NoNorm"])).tolist())


def test_the_effect_at_one_rate_for_all_seeds_is_given_where_they_differ_in_their_rates():
    study = made("batch_size", [32], seed=10)
    best, same = contrasts(study, claim(views=["best_rate", "same_rate"]))
    score = study.runs.pivot(index=["norm", "lr"], columns="seed", values="score").mean(axis=1)
    test = study.runs.pivot(index=["norm", "lr"], columns="seed", values="test_accuracy").mean(axis=1)
    at = {norm: score[norm].idxmax() for norm in BEST}
    assert best.best == {"with": (at["BatchNorm"],), "without": (at["NoNorm"],)}
    assert len(best.rates["without"]) > 1
    assert best.at_one_rate == pytest.approx(100 * (test["BatchNorm", at["BatchNorm"]] - test["NoNorm", at["NoNorm"]]))
    assert same.at_one_rate == pytest.approx(100 * (test["BatchNorm", at["NoNorm"]] - test["NoNorm", at["NoNorm"]]))


def test_a_claim_on_speed_is_tuned_by_speed():
    study = made("batch_size", [32])
    steps = np.arange(0, 101, 10)
    rows = []
    for run in study.runs.itertuples():  # the fastest rate is twice the most accurate one
        rate = 1 / (8 + 20 * np.log10(run.lr / (1.78 * BEST[run.norm])) ** 2 + 0.2 * run.seed)
        values = 0.95 * (1 - np.exp(-rate * steps))
        rows += [(run.run_id, int(t), "val", "accuracy", "", v) for t, v in zip(steps, values, strict=True)]
    metrics = pd.DataFrame(rows, columns=["run_id", "step", "split", "metric", "layer", "value"])
    about = claim(metric="updates_to_target", better="lower", delta=1.25)
    contrast = only(replace(study, metrics=metrics), about)
    assert {side: [*rates] for side, rates in contrast.rates.items()} == {"with": [0.562], "without": [0.178]}


def test_rates_that_one_side_alone_was_tried_at_are_left_out_of_the_grid_of_both():
    study = made("batch_size", [32])
    extra = study.specs["lr"] != 0.562
    kept = extra | (study.specs["norm"] == "BatchNorm")
    some = replace(study, specs=study.specs[kept], runs=study.runs[kept], planned=tuple(study.specs["run_id"][kept]))
    contrast = only(some, claim(metric="width_of_good_rates", views=["all_rates"], delta=0.5))
    assert contrast.grids == dict.fromkeys(("with", "without"), tuple(r for r in RATES if r != 0.562))
    assert contrast.slack == pytest.approx(1, abs=0.01)


def test_a_step_of_the_grid_larger_than_delta_is_an_obstacle():
    contrast = only(made("batch_size", [32]), claim(metric="width_of_good_rates", views=["all_rates"], delta=0.5))
    assert (
        "one step of the grid of learning rates, 1, exceeds the smallest effect of interest, 0.5" in contrast.obstacle
    )


@pytest.mark.parametrize(("guessing", "hinders"), [(0.1, False), (0.95, True)])
def test_networks_that_learned_and_are_right_less_often_than_guessing_are_an_obstacle(guessing, hinders):
    study = made("init.gain", [1.0])
    study = replace(study, runs=study.runs.assign(chance=guessing))
    contrast = only(study, claim(over=...))
    assert ("that learned are right for" in contrast.obstacle) is hinders
    assert ("fewer than by guessing the most frequent class, 95.0%" in contrast.obstacle) is hinders


def test_short_training_is_an_obstacle_to_a_claim_with_a_least_number_of_steps():
    assert only(made("batch_size", [32]), claim(min_steps=200)).obstacle == "100 of at least 200 steps of training"


def test_a_baseline_that_never_learns_has_no_rate_for_the_same_rate_view():
    study = made("batch_size", [32])
    lost = study.runs["norm"] == "NoNorm"
    runs = study.runs.assign(counts_as_guessing=lost, score=study.runs["score"].mask(lost, 0.1))
    best, same = contrasts(replace(study, runs=runs), claim(views=["best_rate", "same_rate"]))
    assert best.obstacle == ""
    assert same.obstacle == "no learning rate is best without it: all runs diverged or did not learn"


def test_a_metric_of_the_whole_grid_can_be_compared_with_a_reference():
    study = made("batch_size", [32])
    about = claim(metric="width_of_good_rates", without=..., reference=1, views=["all_rates"])
    assert len(only(study, about).d) == SEEDS


def test_the_training_loss_to_match_is_the_higher_final_one_of_the_seed():
    study = made("batch_size", [32])
    bad = (study.runs["norm"] == "BatchNorm") & (study.runs["seed"] == 1)
    runs = study.runs.assign(counts_as_guessing=bad)
    rows = []
    for run in runs.itertuples():  # the loss falls to 0.5 without and 0.2 with, the accuracy rises by 0.1 a step
        losses = np.linspace(1.0, 0.5 if run.norm == "NoNorm" else 0.2, 4)
        rows += [(run.run_id, t, "train", "loss", "", v) for t, v in enumerate(losses)]
        rows += [(run.run_id, t, "test", "accuracy", "", 0.1 * t) for t in range(5)]
    metrics = pd.DataFrame(rows, columns=["run_id", "step", "split", "metric", "layer", "value"])
    contrast = only(replace(study, runs=runs, metrics=metrics), claim(metric="test_accuracy_at_training_loss"))
    step = 1 + (1 - 0.5) / (0.8 / 3)  # where the loss with it is 0.5
    assert contrast.values.loc[0].tolist() == pytest.approx([10 * step, 40])
    assert contrast.values.loc[1].tolist() == pytest.approx([10, 40])


def test_missing_runs_of_any_of_the_four_are_an_obstacle_to_an_interaction():
    study = made("batch_size", [4, 32])
    gone = (study.runs["norm"] == "NoNorm") & (study.runs["batch_size"] == 32) & (study.runs["seed"] == 9)
    contrast = only(replace(study, runs=study.runs[~gone]), claim(across={"batch_size": 32}))
    assert "batch_size=32" in contrast.obstacle
    assert 9 not in contrast.d.index


def test_metrics_before_training_need_a_single_learning_rate():
    study = made("batch_size", [32])
    rows = [(r.run_id, 0, "", "backprop_slope", "", -0.1 * (1 + (r.norm == "NoNorm"))) for r in study.runs.itertuples()]
    metrics = pd.DataFrame(rows, columns=["run_id", "step", "split", "metric", "layer", "value"])
    one_rate = study.runs[study.runs["lr"] == 0.01]
    specs = study.specs[study.specs["lr"] == 0.01]
    untrained = replace(study, runs=one_rate, specs=specs, metrics=metrics, planned=tuple(specs["run_id"]))
    about = claim(metric="gradient_slope", better="lower", views=["before_training"])
    contrast = only(untrained, about)
    assert contrast.d.tolist() == pytest.approx([0.1] * SEEDS)
    assert contrast.obstacle == ""


def test_sides_without_a_common_learning_rate_are_not_compared_at_the_same_one():
    study = sweeps.of(rates=(0.1, 0.316))
    apart = {"NoNorm": 0.1, "BatchNorm": 0.316}
    specs, runs = (frame[frame["lr"] == frame["norm"].map(apart)] for frame in (study.specs, study.runs))
    study = replace(study, specs=specs, runs=runs, planned=tuple(specs["run_id"]))
    best, same = contrasts(study, claim(views=["best_rate", "same_rate"]))
    assert len(best.d) == len(runs) / 2
    assert len(same.d) == 0
    assert same.obstacle.endswith("no learning rate was tried on both sides")
