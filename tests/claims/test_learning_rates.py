from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bnstudy.claims.arms import best_arms, best_rate, rates_by_other_seeds, scores_by_rate
from bnstudy.claims.claim import load_claims
from bnstudy.claims.finer_rates import fine_rates
from bnstudy.claims.learning_rates import name_side, rates_around
from tests import sweeps

COARSE = (0.00316, 0.01, 0.0316, 0.1, 0.316, 1.0, 3.16)


def test_the_rate_of_a_seed_is_the_best_of_all_other_seeds() -> None:
    rng = np.random.default_rng(0)
    runs = pd.DataFrame([{"seed": s, "lr": lr, "score": rng.normal()} for s in range(6) for lr in (0.1, 0.3, 1.0)])
    chosen = rates_by_other_seeds(scores_by_rate(runs))
    for seed in range(6):
        means = {lr: np.mean(own["score"]) for lr, own in runs[runs["seed"] != seed].groupby("lr")}
        assert chosen[seed] == max(means, key=means.__getitem__)


def test_a_seed_alone_chooses_for_itself_and_equal_rates_give_the_smaller_one() -> None:
    one = pd.DataFrame({"seed": [3, 3], "lr": [0.1, 1.0], "score": [0.5, 0.5]})
    assert rates_by_other_seeds(scores_by_rate(one))[3] == 0.1
    assert best_rate(scores_by_rate(one)) == 0.1


def test_the_best_arm_of_a_family_is_at_its_best_rate() -> None:
    runs = sweeps.of().runs
    best = best_arms(runs).set_index("family")["lr"].to_dict()
    assert best == {f: best_rate(scores_by_rate(own)) for f, own in runs.groupby("family", observed=True)}


@pytest.mark.parametrize(
    ("rates", "best", "added"),
    [
        (COARSE, 0.1, (0.0562, 0.178)),
        (COARSE, 0.00316, (0.001, 0.00178, 0.00562)),  # at the edge: also one coarse step beyond it
        (COARSE, 3.16, (1.78, 5.62, 10.0)),
        ((*COARSE, 0.0562), 0.1, (0.178,)),
        (sweeps.RATES, 0.1, ()),
        ((0.01, 0.1, 1.0), 0.1, (0.0562, 0.178)),
        ((0.01, 0.05, 1.0), 0.05, (0.0281, 0.0889)),
    ],
)
def test_the_rates_around_the_best_are_a_quarter_decade_away(rates, best, added) -> None:
    assert rates_around(pd.DataFrame({"lr": rates}), best) == pytest.approx(added)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, {"NoNorm": (0.0562, 0.178), "BatchNorm": (0.178, 0.562)}),
        ({"rates": sweeps.RATES}, {}),
        ({"rates": COARSE[1:]}, {}),  # too few for a fair choice
        ({"rates": (0.1,)}, {}),
        ({"limits": (0.0001, 3.16)}, {"BatchNorm": (0.178, 0.562)}),  # where nothing learns no rate is best
        ({"claims": ("higher_learning_rates",)}, {}),  # of the whole grid
    ],
)
def test_a_study_lacks_the_rates_around_the_best_one_of_each_family(changes, found) -> None:
    study = sweeps.of(**{"rates": COARSE, "claims": ("dead_relus",), **changes})
    assert fine_rates(study, load_claims(study.claims)) == {("MLP on Digits", f): r for f, r in found.items()}


def test_each_network_gets_the_rates_around_its_own_best_one() -> None:
    study = sweeps.of(rates=COARSE, claims=("dead_relus",), models=("MLP", "VGG"))
    found = fine_rates(study, load_claims(study.claims))
    assert {panel for panel, _ in found} == {"MLP on Digits", "VGG on Digits"}
    assert len(found) == 4


def test_a_metric_that_no_run_has_chooses_no_rates() -> None:
    study = sweeps.of(rates=COARSE, claims=("breaks_even",))
    assert fine_rates(study, load_claims(study.claims)) == {}


def test_a_claim_on_speed_asks_for_the_rates_around_the_fastest_one() -> None:
    study = sweeps.of(rates=COARSE, claims=("dead_relus", "faster_convergence"))
    fast = study.runs.set_index("run_id")["lr"].map(lambda lr: 1.0 if lr in (0.316, 1.0) else 0.0)
    curves = study.metrics["metric"] == "accuracy"
    value = study.metrics["value"].mask(curves & (study.metrics["run_id"].map(fast) == 1) & (study.metrics["step"] > 0))
    metrics = study.metrics.assign(value=value.fillna(0.9))
    found = fine_rates(type(study)(**{**vars(study), "metrics": metrics}), load_claims(study.claims))
    assert found["MLP on Digits", "NoNorm"] == (0.0562, 0.178, 0.562)


@pytest.mark.parametrize(
    ("norms", "names"),
    [
        ({}, ["with it", "without it"]),
        ({"with": "BatchNorm", "without": "NoNorm"}, ["with it", "without it"]),
        ({"with": "NoNorm", "without": "BatchNorm"}, ["without normalization", "with BatchNorm"]),
        ({"with": "DyT", "without": "BatchNorm"}, ["with DyT", "with BatchNorm"]),
    ],
)
def test_the_sides_are_named_by_their_norms_where_it_would_mislead(norms, names) -> None:
    assert [name_side(norms, side) for side in ("with", "without")] == names
