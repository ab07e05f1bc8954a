from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bnstudy.claims.frames import StudyData
from bnstudy.losses import MSE
from bnstudy.report.reproductions.shift import SCALES_OF_LOSS, SanturkarShift
from tests.report.reproductions.synthetic_study import reproduction, results_by_arm, study

STEPS = (0, 50, 100)


def one_run(cosines: dict[int, tuple[float, ...]], norm: str = "NoNorm") -> StudyData:
    """A study of one run of 100 steps; the cosines are by step and layer."""
    rows = [("r0", step, "", "ics_cosine", str(i), v) for step, values in cosines.items() for i, v in enumerate(values)]
    return study("santurkar_linear", [{"norm": norm, "lr": 1e-3, "final.train_loss": 1.0}], rows)


def pairs(lr: float, plain: float, batch: float, losses: tuple[float, float] = (5.0, 1.0)) -> StudyData:
    """Four seeds of each arm with nearly these cosines at all steps."""
    runs = [
        {"norm": norm, "lr": lr, "seed": s, "final.train_loss": loss + 0.01 * s * loss}
        for norm, loss in zip(("NoNorm", "BatchNorm"), losses, strict=True)
        for s in range(4)
    ]
    value = {i: (plain if i < 4 else batch) + 0.001 * (i % 4) for i in range(8)}
    rows = [(f"r{i}", step, "", "ics_cosine", "a", value[i]) for i in value for step in STEPS]
    rows += [(f"r{i}", step, "train", "loss", "", 1.0) for i in value for step in STEPS]
    return study("santurkar_linear", runs, rows)


def test_cosines_are_means_over_layers_at_the_start_the_middle_and_the_end():
    runs = SanturkarShift(one_run({0: (1.0, 0.8), 1: (9.0, 9.0), 50: (0.2, 0.4), 100: (0.5, -0.7)})).runs()
    found = [runs[f"cosine.{moment}"].item() for moment in ("start", "middle", "end")]
    assert found == pytest.approx([0.9, 0.3, -0.1])


def test_the_absolute_cosine_is_large_where_opposite_signs_cancel():
    runs = SanturkarShift(one_run({100: (0.9, -0.9)}, "BatchNorm")).runs()
    assert runs["cosine.end"].item() == pytest.approx(0)
    assert runs["absolute.end"].item() == pytest.approx(0.9)


def test_a_cosine_that_was_not_measured_is_missing():
    about = one_run({0: (0.9, 0.9), 40: (0.9, 0.9)})
    assert SanturkarShift(about).runs()[["cosine.middle", "cosine.end"]].isna().all(axis=None)
    assert "no data" in {check.result for check in reproduction(about).checks}


def test_cosines_near_one_and_zero_and_a_lower_loss_are_reproduced():
    result = reproduction(pairs(1e-3, 0.99, 0.01))
    assert {check.result for check in result.checks} == {"met"}
    assert result.draw() is not None
    assert result.conclusions == [
        "Learning rate 0.001 (sum over samples and outputs), 100 steps. Reproduced: near 1 without BN: met; near 0 with"
        " BN: met; a lower loss with BN: met. Mean cos(G, G') at the start, middle, end: 0.99, 0.99, 0.99 (|cos| at the"
        " end 0.99) without BN, 0.01, 0.01, 0.01 (|cos| at the end 0.01) with BN. Final training loss: 5.075 (4.972 to"
        " 5.178, 4 seeds) without BN, 1.015 (0.994 to 1.036, 4 seeds) with BN."
    ]
    assert result.findings == ["Of 8 expected values: 8 met.", *result.conclusions]


def test_equal_cosines_are_not_reproduced():
    (conclusion,) = reproduction(pairs(1e-6, 0.99, 0.99, losses=(1.0, 5.0))).conclusions
    assert conclusion.startswith("Learning rate 1e-06 (mean over samples, sum over outputs), 100 steps. Not reproduced")
    assert "near 0 with BN: not met; a lower loss with BN: not met." in conclusion


def test_a_learning_rate_names_the_scale_of_loss_that_gives_the_same_step_as_1e_6():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 1000, 10, generator=generator, dtype=torch.double)
    reductions = {"mean": torch.mean, "sum": torch.sum}
    weight = torch.zeros(10, 10, dtype=torch.double, requires_grad=True)
    (ours,) = torch.autograd.grad(MSE(summed=True).mean(x @ weight, y), weight)
    for lr, text in SCALES_OF_LOSS.items():
        over = text.replace(" and outputs", f", {text.split()[0]} over outputs").split(", ")
        samples, outputs = (reductions[part.split()[0]] for part in over)
        (theirs,) = torch.autograd.grad(samples(outputs((x @ weight - y) ** 2, dim=1)), weight)
        np.testing.assert_allclose(lr * ours, 1e-6 * theirs, rtol=1e-9)


def test_the_arm_states_how_many_diverged_runs_are_left_out():
    runs = [
        {"norm": norm, "lr": 1e-3, "seed": s, "diverged": norm == "NoNorm", "final.train_loss": loss}
        for norm, loss in (("NoNorm", math.inf), ("BatchNorm", 1.0))
        for s in range(2)
    ]
    arms = results_by_arm(study("santurkar_linear", runs, []))
    assert "NoNorm, lr=0.001 (sum over samples and outputs), 100 steps (2 of 2 diverged, left out)" in arms
