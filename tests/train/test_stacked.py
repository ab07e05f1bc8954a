"""The stacked engine against the serial one.

There are two tolerances. In float64 the engines differ by less than 2e-11 of the norm of the parameters after 50 steps;
EXACT leaves room for other processors. In float32 they differ by less than 1e-6, unless an activation lies within
rounding of a kink: its gradient then differs, and the parameters by about 1e-2. This happens to one ReLU network in ten
within 50 steps, so float32 is compared with smooth activations.

Inception networks are smooth in float64 too: constant maps put whole maps at the kink once they are normalized. Their
many poolings of nearly equal values choose by rounding, so they are not compared in float32.

Three settings keep rounding from being amplified: Adam's eps, for gradients that would be 0 without rounding (the
weights of a pixel that is always black, before a batch norm); eps of instance norm, for constant maps; and eps of ghost
batches and of groups, for four values that lie close together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import pytest
import torch
from torch.utils._pytree import tree_leaves

from bnstudy.inits import KaimingNormal, Orthogonal
from bnstudy.models.inception import Inception
from bnstudy.models.mlp import MLP
from bnstudy.models.resnet import ResNet
from bnstudy.models.transformer import Transformer
from bnstudy.models.vgg import VGG
from bnstudy.norms.batch import BatchNorm, GhostBatchNorm, NoisyBatchNorm
from bnstudy.norms.group import GroupNorm, InstanceNorm, LayerNorm
from bnstudy.norms.none import NoNorm
from bnstudy.norms.skipinit import SkipInit
from bnstudy.norms.weight import WeightNorm
from bnstudy.optim import SGD, Adam, AdamW, Constant, Cosine
from bnstudy.probes.base import ProbeSpec
from bnstudy.run import Evaluation, RunSpec
from bnstudy.train.loop import start_serial, start_stacked
from bnstudy.train.stacked import StackedEngine
from bnstudy.when import At, Every
from tests.conftest import CPU, spec_of
from tests.train.helpers import (
    assert_same_outcome,
    assert_same_state,
    train_all,
    train_one,
    train_serial,
    values_by_step,
)

EXACT = 1e-9
ROUNDED = 1e-5
MEASURED = 1e-6
"""Measurements are stored in float32, whatever they were computed in."""

MODELS = {
    "mlp": MLP(depth=2, width=16),
    "vgg": VGG(width=1 / 16),
    "resnet": ResNet(width=4),
    "inception": Inception(width=1 / 64, activation="gelu"),
    "transformer": Transformer(depth=1, width=8, heads=2),
}
NORMS = {
    "none": NoNorm(),
    "batch": BatchNorm(),
    "layer": LayerNorm(),
    "instance": InstanceNorm(eps=1.0),
    "group": GroupNorm(groups=2, eps=0.1),
}
OPTIMS = {
    "sgd": (SGD(), 2**-4),
    "momentum": (SGD(momentum=0.9, nesterov=True, weight_decay=0.01), 2**-7),
    "adam": (Adam(eps=1e-3), 2**-8),
    "adamw": (AdamW(eps=1e-3), 2**-8),
}
NEW = ("inception", "transformer")
"""Networks that are tested with one optimizer, to save time."""

COMBINATIONS = [
    (m, n, o)
    for m, n, o in product(MODELS, NORMS, OPTIMS)
    if (m, n) not in [("mlp", "instance"), ("transformer", "instance")] and (m not in NEW or o == "momentum")
]

SMALL_STEPS = {"inception": 2**-10, "transformer": 2**-8}
"""Learning rates of networks that amplify rounding errors within 50 steps at those of OPTIMS."""

VARIANTS = {"ghost": GhostBatchNorm(size=4, eps=0.1), "noisy_batch": NoisyBatchNorm(), "weight": WeightNorm()}
NORMS |= VARIANTS
COMBINATIONS += list(product(MODELS, VARIANTS, ["momentum"]))


def spec(**changes) -> RunSpec:
    """50 steps of the small network on the few digits."""
    plain = replace(spec_of(), batch_size=8, steps=50, evaluation=Evaluation(At((0, 25))))
    probe = {name: replace(p, when=At((0, 1, 25))) for name, p in plain.probe.items()}
    return replace(plain, **{"model": MODELS["mlp"], "probe": probe, "lr": 2**-4, **changes})


def assert_agreement(specs, dataset, tolerance: float, free: bool = False) -> None:
    """Train the runs one by one and stacked. Learning rates that are powers of 2 are the same number in all formats."""
    stack = start_stacked(specs, dataset, CPU, free=free)
    stacked = train_all(stack)
    for run, spec in enumerate(specs):
        alone = start_serial(spec, dataset, CPU)
        assert_same_outcome(stacked[spec.run_id], train_one(alone), max(tolerance, MEASURED))
        assert_same_state(stack.engine.state(run), alone.engine.state(0), tolerance)
        torch.testing.assert_close(stack.record.losses[:, run], alone.record.losses[:, 0], rtol=0, atol=10 * tolerance)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_all_tensors_of_a_stack_are_on_its_device(norm, digits) -> None:
    meta = torch.device("meta")  # torch refuses operations on tensors of two devices, as on a GPU
    engine = StackedEngine([spec_of(f"norm={norm}", f"seed={seed}", "optim=sgd") for seed in range(3)], digits, meta)
    tensors = [engine.params, engine.slots, engine.buffers(), engine.probe_index, engine.learning_rate(0)]
    assert {tensor.device for tensor in tree_leaves(tensors)} == {meta}


@pytest.mark.parametrize(("model", "norm", "optim"), COMBINATIONS)
def test_the_engines_agree_for_all_networks_norms_and_optimizers(model, norm, optim, wide):
    optimizer, lr = OPTIMS[optim]
    lr = SMALL_STEPS.get(model, lr)
    kind = spec(model=MODELS[model], norm=NORMS[norm], optim=optimizer)
    assert_agreement([replace(kind, lr=lr), replace(kind, lr=2 * lr, seed=1)], wide, EXACT)


SMOOTH = [(m, n, o) for m, n, o in COMBINATIONS if m == "mlp" or (o == "momentum" and m != "inception")]


@pytest.mark.parametrize(("model", "norm", "optim"), SMOOTH)
def test_the_engines_agree_in_single_precision(model, norm, optim, few):
    optimizer, lr = OPTIMS[optim]
    lr = SMALL_STEPS.get(model, lr)
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
def test_runs_of_a_stack_may_differ_in_every_number_marked_per_run(norm, wide):
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
    # The stacked engine keeps learning rates in float32.
    assert_agreement(specs, wide, ROUNDED, free=True)
    ends = {
        round(outcome.final["val_loss"], 4)
        for outcome in train_all(start_stacked(specs, wide, CPU, free=True)).values()
    }
    assert len(ends) == len(specs)


TRANSFORMERS = {
    "post": {"model": replace(MODELS["transformer"], order="post", depth=2), "norm": BatchNorm()},
    "patches": {"model": replace(MODELS["transformer"], patch=4, dropout=0.1), "norm": LayerNorm()},
    "skipinit": {"model": replace(MODELS["transformer"], chunk=16), "norm": SkipInit()},
    "only the norm trained": {"model": MODELS["transformer"], "norm": BatchNorm(), "trained": "norm"},
}

RESIDUAL = {
    "preactivation": {"model": replace(MODELS["resnet"], block="preactivation"), "norm": BatchNorm()},
    "after_addition": {"model": replace(MODELS["resnet"], block="after_addition", dropout=0.1), "norm": LayerNorm()},
    "skipinit": {"model": MODELS["resnet"], "norm": SkipInit()},
    "skipinit, preactivation": {"model": replace(MODELS["resnet"], block="preactivation"), "norm": SkipInit(initial=1)},
}


@pytest.mark.parametrize("change", [*RESIDUAL.values(), *TRANSFORMERS.values()], ids=[*RESIDUAL, *TRANSFORMERS])
def test_the_engines_agree_for_residual_networks(change, wide):
    optimizer, lr = OPTIMS["momentum"]
    kind = spec(optim=optimizer, **change)
    assert_agreement([replace(kind, lr=lr), replace(kind, lr=2 * lr, seed=1)], wide, EXACT)


@pytest.mark.parametrize("optim", OPTIMS)
@pytest.mark.parametrize("model", ["mlp", "resnet"])
def test_the_engines_agree_when_only_the_norm_is_trained(model, optim, wide):
    optimizer, lr = OPTIMS[optim]
    kind = spec(model=MODELS[model], norm=BatchNorm(), optim=optimizer, trained="norm")
    assert_agreement([replace(kind, lr=lr), replace(kind, lr=2 * lr, seed=1)], wide, EXACT)


def test_the_engines_agree_on_cumulative_running_statistics(wide):
    kind = spec(norm=BatchNorm(momentum=None))
    assert_agreement([kind, replace(kind, seed=1)], wide, EXACT)


def test_augmentation_and_dropout_are_the_same_in_both_engines(wide):
    kind = spec(data=replace(spec().data, augment="crop_flip"), model=replace(MODELS["vgg"], dropout=0.3))
    assert_agreement([kind, replace(kind, seed=1)], wide, EXACT)


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("model", ["mlp", "vgg", "resnet"])
def test_initial_weights_and_batches_are_identical_in_both_engines(model, norm, few):
    kind = spec(model=MODELS[model], norm=NORMS[norm], data=replace(spec().data, augment="crop_flip"))
    specs = [replace(kind, seed=seed) for seed in (3, 0, 3)]
    stack = start_stacked(specs, few, CPU)
    for run, one in enumerate(start_serial(spec, few, CPU) for spec in specs):
        assert_same_state(stack.engine.state(run), one.engine.state(0), tolerance=0)
        for step in (0, 31, 32):
            (x, y), (own_x, own_y) = stack.engine.batch(step), one.engine.batch(step)
            assert torch.equal(x[run], own_x)
            assert torch.equal(y[run], own_y)


@pytest.mark.parametrize("init", ["keep", "kaiming_normal", "torch_default", "orthogonal"])
def test_runs_of_a_stack_that_share_a_network_begin_like_runs_alone(init, few):
    specs = [spec_of(f"init={init}", f"seed={seed}", f"lr={lr}", "norm=batch") for seed in (0, 1) for lr in (0.1, 0.2)]
    stack = start_stacked(specs, few, CPU)
    for run, one in enumerate(specs):
        assert torch.equal(stack.engine.state(run)["params"], start_serial(one, few, CPU).engine.state()["params"])


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "group", *VARIANTS])
def test_the_engines_agree_in_bf16_within_its_rounding(norm, few):
    """bf16 keeps 8 bits. Losses of 20 steps are at most 0.02 apart; those in float32 are as far from either."""
    kind = spec(precision="bf16", norm=NORMS[norm], steps=20, lr=2**-6, model=replace(MODELS["mlp"], activation="gelu"))
    specs = [replace(kind, seed=seed) for seed in (0, 1)]
    stacked = train_all(start_stacked(specs, few, CPU))
    for one in specs:
        ours, theirs, full = (
            list(values_by_step(outcome.metrics, "train", "loss").values())
            for outcome in (
                stacked[one.run_id],
                train_serial(one, few),
                train_serial(replace(one, precision="fp32"), few),
            )
        )
        assert ours == pytest.approx(theirs, abs=0.05)
        assert ours[:5] != pytest.approx(full[:5], abs=1e-4)


@dataclass(frozen=True)
class Correlation(ProbeSpec):
    """Needs only the activations."""

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
    """Needs only the parameters."""

    def measure(self, snapshot):
        return {"mean": {layer: snapshot.params[weight].mean() for layer, weight in snapshot.layers.items()}}


@pytest.mark.parametrize("probe", [Correlation(), Nothing(), WeightMean()], ids=lambda probe: type(probe).__name__)
def test_probes_measure_the_same_in_both_engines(probe, wide):
    kind = spec(steps=12, probe={"mine": replace(probe, when=Every(5))})
    assert_agreement([kind, replace(kind, seed=1), replace(kind, seed=2)], wide, EXACT)
