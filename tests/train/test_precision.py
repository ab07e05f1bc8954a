"""precision=fp64, by the theorem of Li & Arora (2019): weight decay acts as a growing learning rate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnstudy.models.mlp import MLP
from bnstudy.norms.batch import BatchNorm
from bnstudy.norms.none import NoNorm
from bnstudy.optim import SGD, Exponential
from tests.conftest import spec_of
from tests.train.helpers import ENGINES, train_all, train_serial

LR, DECAY = 0.1, 0.01
SHRINK = 1 - LR * DECAY


def pair(norm, precision):
    """A run with weight decay, and one whose rate grows instead; only the weights of hidden layers are trained."""
    small = replace(
        spec_of(), steps=60, lr=LR, norm=norm, trained="hidden", precision=precision, model=MLP(depth=2, width=16)
    )
    growing = Exponential(gamma=SHRINK**-2, first=1 / SHRINK)
    return replace(small, optim=SGD(weight_decay=DECAY)), replace(small, schedule=growing)


def losses(outcome):
    rows = outcome.metrics.to_pandas()
    return rows[(rows["split"] == "train") & (rows["metric"] == "loss")].sort_values("step")["value"].to_numpy()


def distance(norm, precision, dataset):
    """The largest difference of the losses, relative to that of the first step."""
    one, other = (losses(train_serial(spec, dataset)) for spec in pair(norm, precision))
    return np.abs(one - other).max() / one[0]


def test_weight_decay_is_a_growing_rate_to_the_precision_of_the_training(few):
    norm = BatchNorm(affine=False, eps=1e-30)
    assert distance(norm, "fp64", few) < 1e-12
    assert 1e-12 < distance(norm, "fp32", few) < 1e-2
    assert distance(NoNorm(), "fp64", few) > 1e-2


@pytest.mark.parametrize("norm", [NoNorm(), BatchNorm()])
def test_both_engines_agree_in_double_precision(norm, few):
    runs = [replace(pair(norm, "fp64")[0], seed=seed) for seed in (0, 1)]
    serial = [losses(train_serial(run, few)) for run in runs]
    stacked = [losses(outcome) for outcome in train_all(ENGINES["stacked"](runs, few)).values()]
    np.testing.assert_allclose(stacked, serial, rtol=1e-12)
