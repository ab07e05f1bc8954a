"""Contrasts of all designs, against loops over the runs."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bnstudy.claims.arms import LABELS, label
from bnstudy.claims.claim import Claim, claim_of
from bnstudy.claims.contrasts import Contrast, contrasts
from bnstudy.claims.frames import StudyData
from bnstudy.claims.learning_rates import RateChoice
from tests.sweeps import NODE, RATES

SEEDS, TUNING = 14, 4
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
                "val_accuracy": accuracy, "diverged": False, "diverged_step": np.nan, "chance": 0.1,
            }
        )  # fmt: skip
    frame = pd.DataFrame(rows)
    frame.insert(0, "run_id", [f"r{i:05d}" for i in range(len(frame))])
    specs = label(frame[["run_id", "model", "data", "norm", column, "lr", "seed"]])
    runs = frame.merge(specs[["run_id", *LABELS]], on="run_id")
    empty = pd.DataFrame({"run_id": [], "step": [], "split": [], "metric": [], "layer": [], "value": []})
    return StudyData("made", "Is it?", "quick", (), tuple(frame["run_id"]), (), specs, runs, empty, empty, {})


def claim(**changes) -> Claim:
    node = {**NODE, "tuning_seeds": TUNING, "views": ["best_rate"], **changes}
    return claim_of({key: value for key, value in node.items() if value is not ...}, "c")


def by_loops(study: StudyData, column: str) -> dict[tuple[str, object], dict[int, pd.Series]]:
    """By norm and value the run of each evaluation seed, at the best rate of the tuning seeds."""
    found = {}
    for (norm, value), runs in study.runs.groupby(["norm", column]):
        means = {lr: np.mean([r.score for r in own.itertuples() if r.seed < TUNING]) for lr, own in runs.groupby("lr")}
        best = max(means, key=means.__getitem__)
        chosen = runs[(runs["lr"] == best) & (runs["seed"] >= TUNING)]
        found[norm, value] = {run["seed"]: run for _, run in chosen.iterrows()}
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
    for seed in range(TUNING, SEEDS):
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
    assert np.isnan(contrast.rates[1])


def test_several_families_of_a_side_give_one_number_per_seed():
    study = made("std", [0.01, 0.1, 1.0])
    contrast = only(study, claim(metric="spread_of_accuracy", over=["std"], better="lower"))
    runs = by_loops(study, "std")
    for seed in range(TUNING, SEEDS):
        best = {n: [100 * runs[n, v][seed]["best_accuracy"] for v in (0.01, 0.1, 1.0)] for n in BEST}
        spread = {n: max(values) - min(values) for n, values in best.items()}
        assert contrast.d[seed] == pytest.approx(spread["NoNorm"] - spread["BatchNorm"])


def test_each_case_and_view_is_a_contrast():
    study = made("batch_size", [8, 32])
    found = contrasts(study, claim(views=["best_rate", "same_rate"]))
    assert [(c.case.setting, c.view) for c in found] == [
        (f"batch_size={b}", view) for b in (8, 32) for view in ("best_rate", "same_rate")
    ]
    assert found[1].rates == (0.1, 0.1)
    assert found[0].rates == (0.316, 0.1)


def test_a_side_of_which_all_runs_diverged_is_an_obstacle():
    study = made("std", [0.01, 0.1, 1.0])
    lost = study.runs["norm"] == "NoNorm"
    outcomes = {c: study.runs[c].mask(lost, 0.1) for c in ("score", "best_accuracy", "val_accuracy", "test_accuracy")}
    about = claim(metric="spread_of_accuracy", over=["std"], better="lower")
    contrast = only(replace(study, runs=study.runs.assign(diverged=lost, **outcomes)), about)
    assert contrast.obstacle == "every run without it diverged, and all are equally bad"


@pytest.mark.parametrize("norms", [["NoNorm"], ["NoNorm", "BatchNorm"]])
def test_sides_over_different_values_are_an_obstacle(norms):
    study = made("std", [0.01, 0.1])
    kept = ~((study.specs["std"] == 0.01) & study.specs["norm"].isin(norms))
    ids = study.specs.loc[kept, "run_id"]
    runs = study.runs[study.runs["run_id"].isin(ids)]
    some = replace(study, specs=study.specs[kept], runs=runs, planned=tuple(ids))
    contrast = only(some, claim(metric="spread_of_accuracy", over=["std"], better="lower"))
    assert "both sides must have the same values of std, two or more" in contrast.obstacle


def test_values_at_the_bound_are_capped_with_a_reference_too():
    study = made("batch_size", [32])
    lost = study.runs.assign(diverged=True, score=0.1)
    assert only(replace(study, runs=lost), claim(without=..., reference=10)).capped


def test_a_baseline_that_never_learns_has_no_rate_for_the_same_rate_view():
    study = made("batch_size", [32])
    lost = study.runs["norm"] == "NoNorm"
    runs = study.runs.assign(diverged=lost, score=study.runs["score"].mask(lost, 0.1))
    best, same = contrasts(replace(study, runs=runs), claim(views=["best_rate", "same_rate"]))
    assert best.obstacle == ""
    assert same.obstacle == "no learning rate is best without it: all of them diverged"


def test_a_metric_of_the_whole_grid_can_be_compared_with_a_reference():
    study = made("batch_size", [32])
    about = claim(metric="width_of_good_rates", without=..., reference=1, views=["all_rates"])
    assert len(only(study, about).d) == SEEDS - TUNING


def test_a_diverged_run_does_not_set_the_loss_to_be_matched():
    study = made("batch_size", [32])
    runs = study.runs.assign(**{"final.train_loss": np.where(study.runs["norm"] == "NoNorm", 0.5, 0.2)})
    bad = (runs["norm"] == "BatchNorm") & (runs["seed"] == 1) & (runs["lr"] == 0.316)
    runs = runs.assign(diverged=bad, **{"final.train_loss": runs["final.train_loss"].mask(bad, np.nan)})
    about = claim(metric="test_accuracy_at_training_loss", views=["best_rate"])
    sides = {side: runs[runs["norm"] == norm] for side, norm in (("with", "BatchNorm"), ("without", "NoNorm"))}
    assert RateChoice(about, "best_rate", sides, range(TUNING)).target() == 0.5
    assert only(replace(study, runs=runs.assign(diverged=True)), about).obstacle.startswith("on some side every run")


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
    about = claim(metric="gradient_slope", better="lower", views=["before_training"], tuning_seeds=0)
    contrast = only(untrained, about)
    assert contrast.d.tolist() == pytest.approx([0.1] * SEEDS)
    assert contrast.obstacle == ""
