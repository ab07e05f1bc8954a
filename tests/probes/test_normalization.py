from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from bnstudy.data.dataset import Dataset, Split
from bnstudy.probes.normalization import NormInternals, for_each_batch
from bnstudy.train.build import build_model
from tests.conftest import spec_of
from tests.probes.conftest import TINY, changed, snapshot_of
from tests.train.test_token_norms import TokenNetwork


@pytest.fixture
def double(digits: Dataset) -> Dataset:
    """The digits in float64."""
    train, val = (Split(split.x.double(), split.y) for split in (digits.train, digits.val))
    return replace(digits, train=train, val=val)


def train(spec, dataset):
    """A plain model after a few steps, and a snapshot of it."""
    snapshot, model = snapshot_of(spec, dataset), build_model(spec, dataset).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for x, y in zip(dataset.train.x[:120].split(24), dataset.train.y[:120].split(24), strict=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    params = {name: p.detach() for name, p in model.named_parameters()}
    network = replace(snapshot.network, buffers=dict(model.named_buffers()))
    return model, changed(snapshot, params=params, network=network)


def norms_of(model):
    found = {name.removesuffix(".norm_act.norm"): module for name, module in model.named_modules()}
    return {layer: module for layer, module in found.items() if isinstance(module, nn.BatchNorm1d)}


@torch.no_grad()
def precise(model, batches):
    """A copy of the model whose running statistics are the population's, from a loop over batches."""
    model = copy.deepcopy(model)
    inputs = {layer: [] for layer in norms_of(model)}
    for layer, norm in norms_of(model).items():
        norm.register_forward_pre_hook(lambda _, given, layer=layer: inputs[layer].append(given[0]))
    for batch in batches:
        model(batch)
    for layer, norm in norms_of(model).items():
        means = [z.mean(0) for z in inputs[layer]]
        squares = [z.var(0, correction=0) + z.mean(0) ** 2 for z in inputs[layer]]
        norm.running_mean.copy_(sum(means) / len(means))
        norm.running_var.copy_(sum(squares) / len(squares) - norm.running_mean**2)
    return model


@torch.no_grad()
def scores(out, y):
    return nn.functional.cross_entropy(out, y).item(), (out.argmax(1) == y).double().mean().item()


@pytest.fixture
def measured_and_model(double):
    spec = spec_of(*TINY, "norm=batch", "batch_size=12")
    model, snapshot = train(spec, double)
    return NormInternals(samples=50, precise_samples=100).measure(snapshot), model, snapshot


def test_scores_follow_the_statistics_in_use(measured_and_model):
    measured, model, snapshot = measured_and_model
    x, y = (t[:48] for t in snapshot.network.held_out(50))  # 4 whole batches of 12
    exact = precise(model, snapshot.network.probe_batch(96)[0].split(12))
    expected = {
        "running": scores(copy.deepcopy(model).eval()(x), y),
        "batch": scores(torch.cat([copy.deepcopy(model).train()(part) for part in x.split(12)]), y),
        "precise": scores(exact.eval()(x), y),
    }
    assert len(set(expected.values())) == 3
    for kind, (loss, accuracy) in expected.items():
        assert measured[f"loss_{kind}"][""].item() == pytest.approx(loss, rel=1e-6)
        assert measured[f"accuracy_{kind}"][""].item() == pytest.approx(accuracy)


def test_distances_are_from_running_to_precise_statistics(measured_and_model):
    measured, model, snapshot = measured_and_model
    exact = precise(model, snapshot.network.probe_batch(96)[0].split(12))
    assert list(measured["running_mean_distance"]) == ["hidden1", "hidden2"]
    for layer, norm in norms_of(model).items():
        true = norms_of(exact)[layer]
        far = (norm.running_mean - true.running_mean).norm() / true.running_var.sqrt().norm()
        ratios = (norm.running_var + norm.eps) / (true.running_var + norm.eps)
        assert measured["running_mean_distance"][layer].item() == pytest.approx(far.item(), rel=1e-6)
        assert measured["running_var_distance"][layer].item() == pytest.approx(
            ratios.log().abs().mean().item(), rel=1e-6
        )


def test_precise_means_equal_a_cumulative_average(double):
    """With momentum=None torch keeps the mean over all batches, so the distance is 0."""
    spec = spec_of(*TINY, "norm=batch")
    snapshot, model = snapshot_of(spec, double), build_model(spec, double).double()
    for norm in norms_of(model).values():
        norm.momentum = None
    for batch in snapshot.network.probe_batch(96)[0].split(8):
        model(batch)
    network = replace(snapshot.network, buffers=dict(model.named_buffers()))
    measured = NormInternals(precise_samples=96).measure(changed(snapshot, network=network))
    assert max(v.item() for v in measured["running_mean_distance"].values()) < 1e-12
    assert max(v.item() for v in measured["running_var_distance"].values()) < 0.5


def test_scales_shifts_and_effective_rates_equal_the_parameters(measured_and_model):
    measured, model, snapshot = measured_and_model
    for layer, norm in norms_of(model).items():
        gamma, beta = norm.weight.detach().tolist(), norm.bias.detach().tolist()
        assert measured["gamma_mean"][layer].item() == pytest.approx(sum(gamma) / 5)
        assert measured["gamma_std"][layer].item() == pytest.approx(
            math.sqrt(sum((g - sum(gamma) / 5) ** 2 for g in gamma) / 5)
        )
        assert measured["gamma_min"][layer].item() == min(gamma)
        assert measured["beta_mean"][layer].item() == pytest.approx(sum(beta) / 5)
        assert measured["beta_std"][layer].item() == pytest.approx(norm.bias.std(correction=0).item())
        size = sum(float(w) ** 2 for w in snapshot.params[f"{layer}.weight.weight"].flatten())
        assert measured["effective_lr"][layer].item() == pytest.approx(0.1 / size)
    assert "out" not in measured["effective_lr"]


@pytest.mark.parametrize(
    ("overrides", "metrics"),
    [
        (("norm=none",), set()),
        (("norm=layer",), {"gamma_mean", "gamma_std", "gamma_min", "beta_mean", "beta_std", "effective_lr"}),
        (("norm=layer", "norm.affine=false"), {"effective_lr"}),
        (("norm=batch", "norm.affine=false", "norm.track_running_stats=false"), {"effective_lr"}),
        (("norm=layer", "norm.position=after", "norm.affine=false"), set()),
        (("norm=weight",), {"effective_lr"}),
        (("norm=rms",), {"gamma_mean", "gamma_std", "gamma_min", "effective_lr"}),
        (("norm=dyt",), {"gamma_mean", "gamma_std", "gamma_min", "beta_mean", "beta_std"}),
    ],
)
def test_metrics_without_meaning_are_left_out(overrides, metrics, double):
    measured = NormInternals().measure(snapshot_of(spec_of(*TINY, *overrides), double))
    assert {metric for metric, by_layer in measured.items() if by_layer} == metrics


def test_fewer_images_than_a_batch_make_one_batch(double):
    snapshot = snapshot_of(spec_of(*TINY, "norm=batch", "batch_size=64"), double)
    measured = NormInternals(samples=20, precise_samples=30).measure(snapshot)
    assert math.isfinite(measured["loss_batch"][""].item())


def test_null_samples_use_all_held_out_images(double):
    """Batches of 9 leave no remainder, so scores with running statistics equal the evaluation."""
    spec = spec_of(*TINY, "norm=batch", "batch_size=9")
    model, snapshot = train(spec, double)
    assert len(double.val) % 9 == 0
    measured = NormInternals(samples=None).measure(snapshot)
    loss, accuracy = scores(model.eval()(double.val.x), double.val.y)
    assert measured["loss_running"][""].item() == pytest.approx(loss, rel=1e-6)
    assert measured["accuracy_running"][""].item() == pytest.approx(accuracy)


def test_the_effective_rate_under_weight_norm_uses_the_length_of_v(double):
    snapshot = snapshot_of(spec_of(*TINY, "norm=weight"), double)
    measured = NormInternals().measure(snapshot)["effective_lr"]
    assert list(measured) == ["hidden1", "hidden2"]
    for layer, rate in measured.items():
        v = snapshot.params[f"{layer}.weight.weight"]
        assert rate.item() == pytest.approx(0.1 / float(v.square().sum()))


def test_batch_statistics_of_a_ghost_norm_are_those_of_training(double):
    spec = spec_of(*TINY, "norm=ghost", "norm.size=4", "batch_size=12")
    snapshot, ghost = snapshot_of(spec, double), build_model(spec, double).double()
    x, y = snapshot.network.held_out(36)
    with torch.no_grad():
        out = torch.cat([ghost(part) for part in x.split(12)])
    measured = NormInternals(samples=36).measure(snapshot)
    assert measured["loss_batch"][""].item() == pytest.approx(scores(out, y)[0], rel=1e-6)
    assert measured["running_mean_distance"].keys() == {"hidden1", "hidden2"}


def test_batch_statistics_of_noisy_batch_norm_have_no_noise(double):
    quiet, loud = (
        NormInternals().measure(snapshot_of(spec_of(*TINY, f"norm={norm}"), double))
        for norm in ("batch", "noisy_batch")
    )
    assert quiet.keys() == loud.keys()
    for metric, by_layer in quiet.items():
        torch.testing.assert_close(loud[metric], by_layer)


def test_a_single_held_out_image_has_no_accuracies(digits):
    """Its statistics as a batch are not defined."""
    one = replace(digits, val=Split(digits.val.x[:1], digits.val.y[:1]))
    measured = NormInternals().measure(snapshot_of(spec_of(*TINY, "norm=batch"), one, double=False))
    assert "running_mean_distance" in measured
    assert not [name for name in measured if name.startswith(("accuracy", "loss"))]


def test_precise_statistics_of_tokens_leave_out_those_that_are_absent(double):
    """Before training: the distance is that from 0 and 1 to the mean and variance of a loop over one batch."""
    spec = replace(spec_of("norm=batch", "batch_size=24"), model=TokenNetwork())
    snapshot = snapshot_of(spec, double)
    measured = NormInternals(samples=24, precise_samples=24).measure(snapshot)
    rows = snapshot.network.probe_batch(24)[0].transpose(1, 2).flatten(2)
    hidden = torch.nn.functional.linear(rows, snapshot.params["hidden1.weight"])
    present = rows.mean(-1) > -0.3
    tokens = torch.stack([token for image, mask in zip(hidden, present, strict=True) for token in image[mask]])
    assert len(tokens) < hidden.shape[0] * hidden.shape[1]
    mean, var = tokens.mean(0), tokens.var(0, correction=0)
    assert measured["running_mean_distance"]["norm"].item() == pytest.approx((mean.norm() / var.sum().sqrt()).item())
    far = ((1 + 1e-5) / (var + 1e-5)).log().abs().mean()
    assert measured["running_var_distance"]["norm"].item() == pytest.approx(far.item(), rel=1e-6)


def test_batches_are_run_one_after_another_where_torch_has_no_rule_for_several():
    gru, x = nn.GRU(3, 4, batch_first=True), torch.randn(5, 2, 6, 3)
    one_by_one = torch.stack([gru(batch)[0] for batch in x])
    torch.testing.assert_close(for_each_batch(lambda batch: gru(batch)[0], x), one_by_one)
