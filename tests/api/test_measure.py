"""`measure`: what it says of networks that know nothing of bnstudy equals loops by hand."""

from __future__ import annotations

import copy
import math
import shutil
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnstudy import ConfigError, ProbeSpec, load_metrics, load_runs, measure
from bnstudy.probes.normalization import NormInternals
from bnstudy.probes.units import DeadUnits
from tests import own_networks
from tests.own_networks import Encoder, Functional, Lazy, Recurrent, ResNet18
from tests.probes.test_network import HandWritten

NETWORKS = {"cnn": Functional, "resnet18": ResNet18, "gru": Recurrent, "transformer": Encoder, "lazy": Lazy}
UNITS = {"transformer": 2}
"""The dimension of the units, if it is not 1."""


def network(name: str, x: Tensor) -> nn.Module:
    """One of the networks in float64, some of whose units are dead."""
    torch.manual_seed(0)
    model = NETWORKS[name]().double()
    if name == "lazy":
        model(x)
    with torch.no_grad():
        for module, unit in ((getattr(model, "bn", None), 1), (getattr(model, "hidden", None), 2)):
            if module is not None:
                module.bias[unit] = -50
        if name == "transformer":
            model.encoder.layers[1].linear1.bias[:3] = -50
        if name == "lazy":
            model.again.bias[4] = -50
        if name == "resnet18":
            model.net.bn1.bias[:5] = -50
    return model


def batch(n: int = 12, size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 1, size, size, generator=generator, dtype=torch.float64)
    return x, torch.randint(10, (n,), generator=generator)


def values(frame: pd.DataFrame, metric: str) -> dict[str, float]:
    """The values of a metric by layer."""
    own = frame[frame["metric"] == metric]
    return dict(zip(own["layer"], own["value"], strict=True))


@pytest.fixture(scope="module", params=NETWORKS)
def measured(request):
    """A network's name, the network, its batch and what is measured of it."""
    x, y = batch(4 if request.param == "resnet18" else 12)
    model = network(request.param, x)
    probes = "standard" if request.param == "resnet18" else "full"
    return request.param, model, x, y, measure(model, x, y, probes)


def test_gradients_equal_those_of_autograd(measured):
    _, model, x, y, frame = measured
    own = copy.deepcopy(model).train()
    F.cross_entropy(own(x), y).backward()
    named = {name.removesuffix(".weight"): p for name, p in own.named_parameters()}
    expected = {layer: p.grad.norm().item() for layer, p in named.items() if p.ndim > 1}
    expected[""] = math.sqrt(sum(p.grad.square().sum().item() for p in named.values()))
    assert values(frame, "grad_norm") == pytest.approx(expected, rel=1e-5)
    sizes = {layer: named[layer].norm().item() for layer in expected if layer}
    products = {layer: expected[layer] * size for layer, size in sizes.items()}
    products[""] = math.sqrt(sum(product**2 for product in products.values()))
    assert values(frame, "grad_weight_product") == pytest.approx(products, rel=1e-5)
    ratios = {layer: 0.1 * expected[layer] / size for layer, size in sizes.items()}
    assert {k: v for k, v in values(frame, "update_ratio").items() if k} == pytest.approx(ratios, rel=1e-5)


def test_gradients_at_each_call_of_an_activation_equal_those_of_a_forward_pass_by_hand(measured):
    _, model, x, y, frame = measured
    out, z = copy.deepcopy(model).train().by_hand(x)
    arriving = torch.autograd.grad(F.cross_entropy(out, y), list(z.values()))
    rms = {layer: g.square().mean().sqrt().item() for layer, g in zip(z, arriving, strict=True)}
    assert values(frame, "backprop_rms") == pytest.approx(rms, rel=1e-5)
    first, *_, last = [*rms.values()] * 2
    assert values(frame, "backprop_ratio") == pytest.approx({"": first / last}, rel=1e-5)


def test_dead_units_are_those_that_no_input_makes_positive(measured):
    name, model, x, _, frame = measured
    with torch.no_grad():
        _, z = copy.deepcopy(model).eval().by_hand(x)
    dead = {layer: ~(of_layer.movedim(UNITS.get(name, 1), 0).flatten(1) > 0).any(1) for layer, of_layer in z.items()}
    expected = {layer: flags.double().mean().item() for layer, flags in dead.items()}
    expected[""] = torch.cat(list(dead.values())).double().mean().item()
    assert values(frame, "dead_share") == pytest.approx(expected)
    assert expected[""] > 0


def test_a_second_derivative_exists_of_each_network(measured):
    name, *_, frame = measured
    if name != "resnet18":  # measured without it, as it is large
        assert values(frame, "sharpness_residual")[""] < 1
        assert values(frame, "loss_max")[""] > 0


def test_the_gates_inside_a_gru_are_said_not_to_be_seen(measured):
    name, *_, frame = measured
    said = [s for s in frame.attrs["cannot_see"] if "gru (nn.GRU) computes its activations inside a single call" in s]
    assert len(said) == (name == "gru")


def test_measuring_changes_neither_the_module_nor_the_random_state():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(), nn.Linear(9, 10))
    model[2].eval()
    model[1].weight.requires_grad_(False)
    kept, state, modes = copy.deepcopy(model.state_dict()), torch.get_rng_state(), [m.training for m in model.modules()]
    x, y = (batch()[0].float(), batch()[1])
    first, again = (measure(model, x, y, "full") for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    torch.testing.assert_close(model.state_dict(), kept, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 5
    assert all(p.grad is None for p in model.parameters())


def test_the_result_is_a_tidy_frame_from_arrays_too():
    x, y = batch()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    frame = measure(model, x.float().numpy(), y.numpy().astype(np.int32), lr=0.5)
    assert list(frame.columns) == ["metric", "layer", "value"]
    assert frame["value"].dtype == float
    assert frame.attrs == {"cannot_see": []}


def test_a_frozen_parameter_does_not_move():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 10))
    model[1].weight.requires_grad_(False)
    x, y = batch()
    ratios = values(measure(model.double(), x, y), "update_ratio")
    assert ratios["1"] == 0
    assert ratios["3"] > 0


def test_a_lazy_module_is_measured_and_stays_lazy():
    x, y = batch()
    model = Lazy().double()
    frame = measure(model, x, y)
    assert set(values(frame, "grad_norm")) == {"", "first", "again", "out"}
    assert isinstance(model.first.weight, nn.UninitializedParameter)


def test_a_hand_written_batch_norm_is_measured_as_that_of_torch():
    x, y = batch(32)
    torch.manual_seed(0)
    torchs = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 10)).double()
    frames = []
    for norm in (torchs[2], HandWritten(9).double(), HandWritten(9, assigned=True).double()):
        own = nn.Sequential(*(norm if i == 2 else copy.deepcopy(m) for i, m in enumerate(torchs)))
        frames.append(measure(own, x, y, "full"))
    first, *others = frames
    unknown = r"gamma_.*|beta_mean|beta_std|.*_precise|running_.*_distance"
    for other in others:
        both = first.merge(other, on=["metric", "layer"], how="outer", suffixes=("", "_other"))
        known = both[~both["metric"].str.fullmatch(unknown)]
        np.testing.assert_allclose(known["value_other"], known["value"], rtol=1e-4, atol=1e-6)
        assert set(first["metric"]) - set(other["metric"]) == {*both[both["value_other"].isna()]["metric"]}
        assert [s for s in other.attrs["cannot_see"] if "2 (HandWritten) keeps statistics" in s]
    assert values(first, "effective_lr") == pytest.approx({"1": 0.1 / torchs[1].weight.square().sum().item()})


class Subclass(nn.BatchNorm2d):
    """A norm of torch's with code of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0


class TwoNorms(nn.Module):
    """A batch norm of an own class that is used twice, then torch's; the last is defined first."""

    def __init__(self) -> None:
        super().__init__()
        self.second, self.first = nn.BatchNorm3d(3), Subclass(3)
        self.conv, self.out = nn.Conv2d(1, 3, 3), nn.Linear(3, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.conv(x))
        x = self.second(2 * self.first(x.relu()).unsqueeze(2))
        return self.out(x.relu().mean((2, 3, 4)))


def test_statistics_of_any_batch_norm_are_compared_with_those_of_all_its_calls():
    x, y = batch(16)
    model = TwoNorms().double()
    with torch.no_grad():
        for _ in range(3):
            model(x + 1)
    frame = measure(model, x, y, NormInternals())
    inputs = {"first": [], "second": []}
    own = copy.deepcopy(model).train()
    for name, seen in inputs.items():
        getattr(own, name).register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
    own(x)
    for name, seen in inputs.items():
        z, norm = torch.stack(seen).movedim(2, 0).flatten(1), getattr(model, name)
        far = (norm.running_mean - z.mean(1)).norm() / z.var(1, correction=0).sum().sqrt()
        ratio = (norm.running_var + norm.eps) / (z.var(1, correction=0) + norm.eps)
        assert values(frame, "running_mean_distance")[name] == pytest.approx(far.item(), rel=1e-5)
        assert values(frame, "running_var_distance")[name] == pytest.approx(ratio.log().abs().mean().item(), rel=1e-5)
    assert list(values(frame, "gamma_mean")) == ["first", "second"]
    assert list(values(frame, "running_mean_distance")) == ["first", "second"]


def test_running_statistics_of_no_batch_are_said():
    x, y = batch()
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10)).double()
    assert "are of no batch" in measure(model, x, y).attrs["cannot_see"][0]
    model(x)
    assert measure(model, x, y).attrs["cannot_see"] == []


def test_probes_are_a_name_or_probes():
    x, y = batch()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 10)).double()
    by_name = measure(model, x, y, "standard")
    own = measure(model, x, y, DeadUnits(statistics="batch"))
    assert values(own, "dead_share") == values(by_name, "dead_share")
    assert set(own["metric"]) < set(by_name["metric"])
    twice = measure(model, x, y, [DeadUnits(), DeadUnits(statistics="batch")])
    assert len(twice) == 2 * len(own)


@dataclass(frozen=True)
class Broken(ProbeSpec):
    def measure(self, snapshot):  # noqa: ARG002
        raise RuntimeError("no rule for this")


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 10, batch_first=True).double()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.gru(x.squeeze(1))


X, Y = batch()
PLAIN = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((PLAIN, X, Y[:5]), "x has 12 inputs and y 5 labels: their numbers must be equal"),
        ((PLAIN, X[:1], Y[:1]), "must be a batch .* of at least 2 inputs"),
        ((PLAIN, X, Y + 8), "labels from .* to .*: it must be 12 labels from 0 to 9"),
        ((PLAIN, X, X[:, 0, 0]), "is not allowed: it must be whole numbers"),
        ((PLAIN, X.float(), Y), "The module fails for x of shape .* and torch.float32"),
        ((PLAIN, X[:, :, :4], Y), "The module fails for x of shape"),
        ((PLAIN, X, Y, "fulll"), "probe=fulll is not allowed: .* did you mean full"),
        ((PLAIN, X, Y, [3]), "it must be a name such as"),
        ((PLAIN, X, Y, Broken()), "The probes cannot measure this module: RuntimeError: no rule for this"),
        ((Pair(), X, Y), r"returns a tuple; it must return a tensor \[12, classes\]"),
        ((nn.Flatten(), X, Y), "A Flatten without parameters to train is not allowed"),
        (("resnet18", X, Y), "it must be an nn.Module"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, sentence):
    with pytest.raises(ConfigError, match=sentence):
        measure(*arguments)


def test_a_rate_or_a_loss_that_is_not_allowed_is_refused():
    with pytest.raises(ConfigError, match="lr=-1 is not allowed"):
        measure(PLAIN, X, Y, lr=-1.0)
    with pytest.raises(ConfigError, match="loss=huber is not allowed"):
        measure(PLAIN, X, Y, loss="huber")


def test_targets_that_are_numbers_are_measured_with_mse():
    target = torch.randn(12, 10, dtype=torch.float64)
    frame = measure(PLAIN, X, target, loss="mse")
    own = copy.deepcopy(PLAIN)
    F.mse_loss(own(X), target).backward()
    assert values(frame, "grad_norm")["1"] == pytest.approx(own[1].weight.grad.norm().item(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn", "gru", "transformer", "lazy"])
def test_each_network_is_trained_with_norms_of_its_own_and_others(name, command, tmp_path):
    """From a folder outside of the repository, with all probes."""
    shutil.copy(own_networks.__file__, tmp_path / "my_networks.py")
    target = f"model.target=my_networks.{NETWORKS[name].__name__}"
    norms = {"cnn": "keep,none", "gru": "keep,none", "transformer": "keep,none", "lazy": "keep"}[name]
    words = ("model=module", target, f"norm={norms}", "init=keep", "probe=full", "steps=4", "batch_size=16")
    status, _, err = command("-m", *words, "lr=0.1", "seed=0,1", "data.train_size=200")
    assert status == 0, err
    runs = load_runs("results")
    assert len(runs) == 2 * len(norms.split(","))
    rows = load_metrics("results")
    first = rows[(rows["step"] == 0) & (rows["metric"] == "grad_norm")]
    assert first.groupby("run_id", observed=True)["value"].sum().nunique() == len(runs)
