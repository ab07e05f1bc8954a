"""The stacked engine against the serial one.

Two tolerances. In float64 the engines differ by less than 2e-11 of the parameters' norm after 50 updates, over all
networks, norms and optimizers below; EXACT leaves room for other processors. In float32 they differ by less than 1e-6,
about as much as float32 and float64 do within the serial engine, as long as no unit passes a kink: where an activation
lies within rounding of one, as happens to about one of ten ReLU networks in 50 updates, its gradient comes out
otherwise, and the parameters then differ by 1e-2 or so. So float32 is compared with smooth activations.

Three more choices keep rounding from being blown up, by more than 1e8 but for the last: Adam's eps, for gradients that
are 0 but for rounding (the weights of a pixel that is always black, before a batch norm), eps of instance norm, for
maps that are constant, and eps of ghost batches, as four values can lie close to one another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import pytest
import torch

from bnstudy.inits import KaimingNormal, Orthogonal
from bnstudy.models.mlp import MLP
from bnstudy.models.resnet import ResNet
from bnstudy.models.vgg import VGG
from bnstudy.norms.batch import BatchNorm, GhostBatchNorm, NoisyBatchNorm
from bnstudy.norms.group import GroupNorm, InstanceNorm, LayerNorm
from bnstudy.norms.none import NoNorm
from bnstudy.norms.skipinit import SkipInit
from bnstudy.norms.weight import WeightNorm
from bnstudy.optim import SGD, Adam, AdamW, Constant, Cosine
from bnstudy.probes.base import ProbeSpec
from bnstudy.probes.gradients import GradientNorm
from bnstudy.probes.units import DeadUnits
from bnstudy.run import Evaluation, RunSpec
from bnstudy.train.serial import SerialRun
from bnstudy.train.stacked import StackedRun
from bnstudy.when import At, AtEnd, Every
from tests.conftest import CPU, spec_of
from tests.train.courses import assert_same_course, assert_same_state, outcome, outcomes, rows, serial

EXACT = 1e-9
ROUNDED = 1e-5
MEASURED = 1e-6
"""What is measured is kept in float32, whatever it was computed in."""

MODELS = {"mlp": MLP(depth=2, width=16), "vgg": VGG(width=1 / 16), "resnet": ResNet(width=4)}
NORMS = {
    "none": NoNorm(),
    "batch": BatchNorm(),
    "layer": LayerNorm(),
    "instance": InstanceNorm(eps=1.0),
    "group": GroupNorm(groups=2),
}
OPTIMS = {
    "sgd": (SGD(), 2**-4),
    "momentum": (SGD(momentum=0.9, nesterov=True, weight_decay=0.01), 2**-7),
    "adam": (Adam(eps=1e-3), 2**-8),
    "adamw": (AdamW(eps=1e-3), 2**-8),
}
COMBINATIONS = [(m, n, o) for m, n, o in product(MODELS, NORMS, OPTIMS) if (m, n) != ("mlp", "instance")]

VARIANTS = {"ghost": GhostBatchNorm(size=4, eps=0.1), "noisy_batch": NoisyBatchNorm(), "weight": WeightNorm()}
NORMS |= VARIANTS
COMBINATIONS += list(product(MODELS, VARIANTS, ["momentum"]))


def spec(**changes) -> RunSpec:
    """50 updates of the small network on the few digits."""
    plain = replace(spec_of(), batch_size=8, steps=50, evaluation=Evaluation(At((0, 25))))
    probe = {name: replace(p, when=At((0, 1, 25))) for name, p in plain.probe.items()}
    return replace(plain, **{"model": MODELS["mlp"], "probe": probe, "lr": 2**-4, **changes})


def assert_agreement(specs, dataset, tolerance: float, free: bool = False) -> None:
    """Train the runs one by one and at once. Learning rates that are powers of 2 are the same number in all formats."""
    stack = StackedRun(specs, dataset, CPU, free=free)
    stacked = outcomes(stack)
    for run, spec in enumerate(specs):
        alone = SerialRun(spec, dataset, CPU)
        assert_same_course(stacked[spec.run_id], outcome(alone), max(tolerance, MEASURED))
        assert_same_state(stack.state(run), alone.state(), tolerance)
        torch.testing.assert_close(stack.record.losses[:, run], alone.record.losses[:, 0], rtol=0, atol=10 * tolerance)


@pytest.mark.parametrize(("model", "norm", "optim"), COMBINATIONS)
def test_all_networks_norms_and_optimizers_agree(model, norm, optim, wide):
    optimizer, lr = OPTIMS[optim]
    kind = spec(model=MODELS[model], norm=NORMS[norm], optim=optimizer)
    assert_agreement([replace(kind, lr=lr), replace(kind, lr=2 * lr, seed=1)], wide, EXACT)


@pytest.mark.parametrize(("model", "norm", "optim"), [c for c in COMBINATIONS if c[0] == "mlp" or c[2] == "momentum"])
def test_they_agree_in_single_precision_too(model, norm, optim, few):
    optimizer, lr = OPTIMS[optim]
    kind = spec(model=replace(MODELS[model], activation="gelu"), norm=NORMS[norm], optim=optimizer)
    assert_agreement([replace(kind, lr=lr), replace(kind, lr=2 * lr, seed=1)], few, ROUNDED)


NUMBERS = {
    "lr": {"lr": 2**-5},
    "seed": {"seed": 1},
    "init": {"init": Orthogonal()},
    "gain": {"init": KaimingNormal(gain=0.5)},
    "schedule": {"schedule": Cosine(warmup=5)},
    "optim.momentum": {"optim": SGD(momentum=0.5, weight_decay=0.01)},
    "optim.weight_decay": {"optim": SGD(momentum=0.9, weight_decay=0.1)},
    "model.dropout": {"model": replace(MODELS["mlp"], dropout=0.5)},
}


@pytest.mark.parametrize("norm", ["batch", "layer", "group", "ghost", "noisy_batch"])
def test_runs_of_a_stack_may_differ_in_every_number_that_is_their_own(norm, wide):
    same = spec(
        model=replace(MODELS["mlp"], dropout=0.1),
        norm=NORMS[norm],
        optim=SGD(momentum=0.9, weight_decay=0.01),
        schedule=Constant(),
        init=KaimingNormal(),
    )
    specs = [same, *(replace(same, **change) for change in NUMBERS.values())]
    specs.append(replace(same, norm=replace(same.norm, eps=0.5)))
    if isinstance(same.norm, BatchNorm):
        specs.append(replace(same, norm=replace(same.norm, momentum=0.5)))
    if norm == "noisy_batch":
        specs += [replace(same, norm=replace(same.norm, **{name: 1.5})) for name in ("shift", "scale", "jitter")]
    assert len({s.stack_key for s in specs}) == 1
    # Courses of the learning rate are kept in float32.
    assert_agreement(specs, wide, ROUNDED, free=True)
    ends = {
        round(outcome.final["val_loss"], 4) for outcome in outcomes(StackedRun(specs, wide, CPU, free=True)).values()
    }
    assert len(ends) == len(specs)


RESIDUAL = {
    "preactivation": {"model": replace(MODELS["resnet"], block="preactivation"), "norm": BatchNorm()},
    "after_addition": {"model": replace(MODELS["resnet"], block="after_addition", dropout=0.1), "norm": LayerNorm()},
    "skipinit": {"model": MODELS["resnet"], "norm": SkipInit()},
    "skipinit, preactivation": {"model": replace(MODELS["resnet"], block="preactivation"), "norm": SkipInit(initial=1)},
}


@pytest.mark.parametrize("change", RESIDUAL.values(), ids=RESIDUAL)
def test_residual_networks_of_all_kinds_agree(change, wide):
    optimizer, lr = OPTIMS["momentum"]
    kind = spec(optim=optimizer, **change)
    assert_agreement([replace(kind, lr=lr), replace(kind, lr=2 * lr, seed=1)], wide, EXACT)


@pytest.mark.parametrize("optim", OPTIMS)
@pytest.mark.parametrize("model", ["mlp", "resnet"])
def test_runs_of_which_only_the_norm_is_trained_agree(model, optim, wide):
    optimizer, lr = OPTIMS[optim]
    kind = spec(model=MODELS[model], norm=BatchNorm(), optim=optimizer, trained="norm")
    assert_agreement([replace(kind, lr=lr), replace(kind, lr=2 * lr, seed=1)], wide, EXACT)


def test_cumulative_running_statistics_agree(wide):
    kind = spec(norm=BatchNorm(momentum=None))
    assert_agreement([kind, replace(kind, seed=1)], wide, EXACT)


def test_augmented_batches_and_dropout_noise_are_those_of_the_run_alone(wide):
    kind = spec(data=replace(spec().data, augment="crop_flip"), model=replace(MODELS["vgg"], dropout=0.3))
    assert_agreement([kind, replace(kind, seed=1)], wide, EXACT)


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("model", ["mlp", "vgg", "resnet"])
def test_runs_begin_with_the_weights_and_see_the_batches_that_they_have_alone_bit_for_bit(model, norm, few):
    kind = spec(model=MODELS[model], norm=NORMS[norm], data=replace(spec().data, augment="crop_flip"))
    specs = [replace(kind, seed=seed) for seed in (3, 0, 3)]
    stack = StackedRun(specs, few, CPU)
    for run, one in enumerate(SerialRun(spec, few, CPU) for spec in specs):
        assert_same_state(stack.state(run), one.state(), tolerance=0)
        for step in (0, 31, 32):
            x, y = stack._batches.gather(*stack._batches.select(step))
            assert torch.equal(x[run], one.batches(step)[0])
            assert torch.equal(y[run], one.batches(step)[1])


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "group", *VARIANTS])
def test_bf16_agrees_within_its_own_rounding(norm, few):
    """bf16 keeps 8 bits. Losses of 20 updates are at most 0.02 apart; those in float32 are as far from either."""
    kind = spec(precision="bf16", norm=NORMS[norm], steps=20, lr=2**-6, model=replace(MODELS["mlp"], activation="gelu"))
    specs = [replace(kind, seed=seed) for seed in (0, 1)]
    stacked = outcomes(StackedRun(specs, few, CPU))
    for one in specs:
        ours, theirs, full = (
            list(rows(ended.metrics, "train", "loss").values())
            for ended in (stacked[one.run_id], serial(one, few), serial(replace(one, precision="fp32"), few))
        )
        assert ours == pytest.approx(theirs, abs=0.05)
        assert ours[:5] != pytest.approx(full[:5], abs=1e-4)


# ------------------------------------------------------------------------------------------------------ probes


@dataclass(frozen=True)
class Correlation(ProbeSpec):
    """Needs the activations only."""

    def observe(self, activation, z, a):  # noqa: ARG002
        return a

    def measure(self, snapshot):
        gram = {layer: a.T @ a for layer, a in snapshot.observed.items()}
        return {"correlation": {layer: torch.linalg.matrix_norm(g, 2) for layer, g in gram.items()}}


@dataclass(frozen=True)
class Nothing(ProbeSpec):
    def measure(self, snapshot):  # noqa: ARG002
        return {}


@dataclass(frozen=True)
class WeightMean(ProbeSpec):
    """Needs nothing but the parameters."""

    def measure(self, snapshot):
        return {"mean": {layer: snapshot.params[weight].mean() for layer, weight in snapshot.layers.items()}}


@pytest.mark.parametrize(
    "probe",
    [Correlation(), Nothing(), WeightMean(), DeadUnits(), GradientNorm()],
    ids=lambda probe: type(probe).__name__,
)
def test_every_kind_of_probe_measures_what_it_does_alone(probe, wide):
    kind = spec(steps=12, probe={"mine": replace(probe, when=Every(5))})
    assert_agreement([kind, replace(kind, seed=1), replace(kind, seed=2)], wide, EXACT)


def test_a_network_without_relu_has_no_dead_units_in_a_stack_either(few):
    kind = spec(steps=3, model=replace(MODELS["mlp"], activation="tanh"))
    [ended] = outcomes(StackedRun([kind], few, CPU)).values()
    assert rows(ended.metrics, "", "dead_share") == {}
    assert rows(ended.metrics, "", "grad_norm").keys() == {0, 1, 3}


def test_runs_without_probes_are_trained(few):
    kind = spec(steps=3, probe={}, evaluation=Evaluation(AtEnd()))
    [ended] = outcomes(StackedRun([kind], few, CPU)).values()
    assert set(ended.metrics["metric"].to_pylist()) == {"loss", "accuracy", "lr"}


def test_recording_changes_nothing(few):
    watched = spec(norm=NORMS["batch"], model=replace(MODELS["mlp"], dropout=0.2))
    left_alone = replace(watched, probe={}, evaluation=Evaluation(AtEnd()))
    first, second = (StackedRun([s, replace(s, seed=1)], few, CPU) for s in (watched, left_alone))
    for stack in (first, second):
        outcomes(stack)
    for run in (0, 1):
        assert_same_state(first.state(run), second.state(run), tolerance=0)
