"""Stacked runs measure the same as single ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnstudy.probes.activations import Activations
from bnstudy.probes.curvature import Sharpness
from bnstudy.probes.fit import TrainingFit
from bnstudy.probes.gradients import Backprop, GradientNorm
from bnstudy.probes.landscape import Landscape
from bnstudy.probes.normalization import NormInternals
from bnstudy.probes.shift import CovariateShift
from bnstudy.probes.units import DeadUnits
from bnstudy.probes.weights import WeightSize
from bnstudy.train.loop import start_stacked
from bnstudy.when import At
from tests.conftest import CPU, spec_of
from tests.probes.conftest import TINY
from tests.train.helpers import train_all, train_serial

TWICE, THRICE = At((0, 6)), At((0, 1, 3))
VGG = "model=vgg model.depth=8 model.width=0.03"
RESNET = "model=resnet model.depth=8 model.width=2"
INTERNALS = NormInternals(samples=100, precise_samples=300, when=TWICE)

CASES = [
    (WeightSize(), ["norm=batch"], 1e-4, 1e-6),
    # In float32 the gradients at a hidden layer differ by up to 4e-4 after 6 steps of a tiny network with batch norm.
    *((probe, ["norm=none", "norm=batch"], 1e-3, 1e-6) for probe in (GradientNorm(), Backprop())),
    (Landscape(when=TWICE), ["norm=none", "norm=batch", f"{VGG} norm=batch"], 1e-3, 1e-5),
    (Sharpness(samples=64, when=TWICE), ["norm=none", "norm=batch", f"{VGG} norm=batch"], 1e-2, 1e-3),
    (CovariateShift(when=TWICE), ["norm=none", "norm=batch model.dropout=0.3", f"{VGG} norm=batch"], 1e-4, 1e-5),
    (INTERNALS, ["norm=batch", "norm=ghost norm.size=4", "norm=noisy_batch", "norm=weight"], 1e-3, 1e-5),
    (INTERNALS, ["norm=group norm.groups=1", f"{VGG} norm=batch"], 1e-3, 1e-5),
    (TrainingFit(when=TWICE), ["norm=batch model.dropout=0.5", f"{VGG} norm=layer"], 1e-4, 1e-6),
    *(
        (
            DeadUnits(statistics=statistics),
            [f"norm={norm} init.gain=0.5" for norm in ("none", "batch", "layer")],
            1e-4,
            1e-6,
        )
        for statistics in ("running", "batch")
    ),
    (DeadUnits(when=At((0, 3))), [VGG, RESNET], 1e-4, 1e-6),
    *(
        (
            Activations(samples=100, statistics=statistics, when=THRICE),
            [f"norm={norm}" for norm in ("none", "batch", "layer", "noisy_batch")],
            1e-3,
            1e-4,
        )
        for statistics in ("running", "batch", "training")
    ),
    (Activations(samples=100, when=At((0, 3))), [VGG, RESNET], 2e-3, 1e-4),
    (Activations(samples=100), ["model.activation=sigmoid init.gain=4"], 1e-3, 1e-4),
]


@pytest.mark.parametrize(
    ("probe", "overrides", "rtol", "atol"),
    [
        pytest.param(probe, overrides, rtol, atol, id=f"{type(probe).__name__} {probe.statistics} {overrides}")
        for probe, many, rtol, atol in CASES
        for overrides in many
    ],
)
def test_stacked_runs_measure_the_same_as_single_ones(probe, overrides, rtol, atol, digits):
    spec = replace(spec_of(*TINY, "steps=6", *overrides.split()), probe={"mine": probe})
    specs = [replace(spec, seed=seed, lr=lr) for seed, lr in ((0, 0.1), (1, 0.05), (2, 0.2))]
    together = train_all(start_stacked(specs, digits, CPU))
    for one in specs:
        ours, theirs = together[one.run_id].metrics, train_serial(one, digits).metrics
        assert ours.drop(["value"]).equals(theirs.drop(["value"]))
        own = ~theirs.to_pandas().metric.isin(["loss", "accuracy", "lr"])
        assert own.any()
        np.testing.assert_allclose(ours["value"].to_numpy()[own], theirs["value"].to_numpy()[own], rtol, atol)
