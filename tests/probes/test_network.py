from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.func import functional_call, grad

from bnstudy.losses import CrossEntropy
from bnstudy.probes.base import ProbeSpec, Snapshot
from bnstudy.probes.network import copy_for_probes, in_parts
from bnstudy.train.build import build_model
from bnstudy.train.loop import start_serial
from bnstudy.when import At
from tests.conftest import CPU, spec_of
from tests.probes.conftest import TINY, snapshot_of

MODELS = ["model=mlp", "model=vgg", "model=resnet"]


def plain(spec, digits):
    return build_model(spec, digits).double()


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "ghost", "weight"])
@pytest.mark.parametrize("model", MODELS)
def test_modes_equal_those_of_the_plain_network(model, norm, digits):
    spec = spec_of(model, f"norm={norm}", "batch_size=8", *(["norm.size=4"] if norm == "ghost" else []))
    net, snapshot = plain(spec, digits), snapshot_of(spec, digits)
    x, y = snapshot.network.batch
    out = {mode: snapshot.network(snapshot.params, x, mode) for mode in ("training", "running", "batch")}
    torch.testing.assert_close(out["training"], net(x))
    torch.testing.assert_close(out["batch"], out["training"])  # without dropout
    torch.testing.assert_close(out["running"], plain(spec, digits).eval()(x))
    torch.testing.assert_close(snapshot.network.loss(snapshot.params), CrossEntropy().mean(out["training"], y))


def test_dropout_acts_in_training_mode_only_and_draws_the_same_each_time(digits):
    snapshot = snapshot_of(spec_of(*TINY, "norm=batch", "model.dropout=0.5"), digits)
    x, _ = snapshot.network.batch
    seen = [[snapshot.network(snapshot.params, x, mode) for mode in ("training", "running", "batch")] for _ in range(2)]
    for first, again in zip(*seen, strict=True):
        assert torch.equal(first, again)
    assert not torch.allclose(seen[0][0], seen[0][2])


def test_norm_noise_acts_in_training_mode_only_as_in_the_next_step(digits):
    noisy, quiet = (snapshot_of(spec_of(*TINY, f"norm={norm}"), digits) for norm in ("noisy_batch", "batch"))
    x, _ = noisy.network.batch
    out = {mode: noisy.network(noisy.params, x, mode) for mode in ("training", "running", "batch")}
    for mode in ("running", "batch"):
        torch.testing.assert_close(out[mode], quiet.network(quiet.params, x, mode))
    torch.testing.assert_close(out["training"], plain(spec_of(*TINY, "norm=noisy_batch"), digits)(x))
    assert not torch.allclose(out["training"], out["batch"])


@pytest.mark.parametrize("norm", ["batch", "noisy_batch"])
def test_using_the_network_changes_neither_buffers_nor_model(norm, digits):
    spec = spec_of(*TINY, f"norm={norm}", "model.dropout=0.5")
    snapshot = snapshot_of(spec, digits)
    network = snapshot.network
    kept = {name: b.clone() for name, b in network.buffers.items()}
    grad(network.loss)(snapshot.params)
    network.inside(snapshot.params, network.batch[0], "batch")
    assert all(torch.equal(b, kept[name]) for name, b in network.buffers.items())
    assert network.model.training
    assert not any(m._forward_pre_hooks for m in network.model.modules())


@pytest.mark.parametrize("norm", [("batch",), ("ghost", "norm.size=4"), ("noisy_batch",), ("weight",)])
def test_the_gradient_of_the_network_is_that_of_the_next_step(norm, digits):
    """It has the same batch, noise and statistics."""
    name, *others = norm
    spec = replace(
        spec_of(*TINY, f"norm={name}", *others, "model.dropout=0.3", "steps=3"),
        probe={"mine": Compare(when=At((0, 2)))},
    )
    outcomes = []
    start_serial(spec, digits, CPU).train(lambda _, outcome: outcomes.append(outcome))
    rows = outcomes[0].metrics.to_pandas()
    assert rows[rows["metric"] == "difference"]["value"].tolist() == pytest.approx([0.0] * 3, abs=1e-6)


class Compare(ProbeSpec):
    """The largest difference between the gradient of the step and that of the network's loss."""

    needs_update = True
    needs_network = True

    def measure(self, snapshot):
        again = grad(snapshot.network.loss)(dict(snapshot.params))
        return {"difference": {"": torch.stack([(g - again[n]).abs().max() for n, g in snapshot.grads.items()]).max()}}


def test_shifts_are_added_to_the_pre_activations(digits):
    snapshot = snapshot_of(spec_of(*TINY, "norm=none"), digits)
    x, _ = snapshot.network.batch
    _, z = snapshot.network.inside(snapshot.params, x)
    assert list(z) == ["hidden1", "hidden2"]
    shifts = {layer: torch.full_like(value, 0.5) for layer, value in z.items()}
    _, moved = snapshot.network.inside(snapshot.params, x, shifts=shifts)
    torch.testing.assert_close(moved["hidden1"], z["hidden1"] + 0.5)


def test_a_copy_for_probes_does_not_change_the_model(digits):
    net = build_model(spec_of(*TINY, "norm=batch"), digits)
    copy = copy_for_probes(net)
    x = digits.train.x[:8]
    functional_call(copy, (dict(net.named_parameters()), dict(net.named_buffers())), (x,))
    assert net.hidden1.norm_act.norm.num_batches_tracked == 0
    net(x)
    assert net.hidden1.norm_act.norm.num_batches_tracked == 1
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("n", [2, 255, 256, 257, 1025])
def test_parts_of_a_batch_are_nearly_equal(n):
    parts = in_parts(torch.arange(n))
    assert torch.cat(parts).tolist() == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert max(map(len, parts)) <= 256


def test_probe_batches_are_training_images_and_held_out_ones_are_shuffled(digits):
    network = snapshot_of(spec_of(*TINY), digits).network
    probe_x, probe_y = network.probe_batch(5)
    assert torch.equal(probe_x, digits.train.x[network.probe_index[:5]])
    assert torch.equal(probe_y, digits.train.y[network.probe_index[:5]])
    held_out = network.held_out(40)[1]
    assert not torch.equal(held_out, digits.val.y[:40])
    assert torch.equal(held_out.sort()[0], digits.val.y[:40].sort()[0])


def test_a_snapshot_refuses_parts_that_the_probe_does_not_declare():
    snapshot = Snapshot(params={})
    for part, declaration in (("grads", "needs_update = True"), ("network", "needs_network"), ("memory", "remember")):
        with pytest.raises(AttributeError, match=rf"snapshot\.{part} is not available: .*{declaration}"):
            getattr(snapshot, part)


def test_a_probe_gets_only_the_parts_that_it_declares_beside_others(digits):
    spec = replace(spec_of(*TINY, "steps=2"), probe={"all": Compare(), "undeclared": Undeclared()})
    with pytest.raises(AttributeError, match="needs_update"):
        start_serial(spec, digits, CPU).train(lambda *_: None)


class Undeclared(ProbeSpec):
    def measure(self, snapshot):
        return {"": snapshot.grads}
