from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.func import functional_call, grad

from bnstudy.data.batches import BatchStream
from bnstudy.losses import CrossEntropy
from bnstudy.probes.base import ProbeSpec
from bnstudy.probes.network import in_parts, still
from bnstudy.train.serial import SerialRun
from bnstudy.train.state import build_model
from bnstudy.when import At
from tests.conftest import CPU, spec_of
from tests.probes.conftest import TINY, snapshot_of

MODELS = ["model=mlp", "model=vgg", "model=resnet"]


def plain(spec, digits):
    return build_model(spec, digits).double()


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "ghost", "weight"])
@pytest.mark.parametrize("model", MODELS)
def test_the_modes_are_those_of_the_plain_network(model, norm, digits):
    spec = spec_of(model, f"norm={norm}", "batch_size=8", *(["norm.size=4"] if norm == "ghost" else []))
    net, snapshot = plain(spec, digits), snapshot_of(spec, digits)
    x, y = snapshot.network.batch
    out = {mode: snapshot.network(snapshot.params, x, mode) for mode in ("training", "running", "batch")}
    torch.testing.assert_close(out["training"], net(x))
    torch.testing.assert_close(out["batch"], out["training"])  # as there is no dropout
    torch.testing.assert_close(out["running"], plain(spec, digits).eval()(x))
    torch.testing.assert_close(snapshot.network.loss(snapshot.params), CrossEntropy().mean(out["training"], y))


def test_dropout_drops_in_training_only_and_does_not_count(digits):
    snapshot = snapshot_of(spec_of(*TINY, "norm=batch", "model.dropout=0.5"), digits)
    x, _ = snapshot.network.batch
    seen = [[snapshot.network(snapshot.params, x, mode) for mode in ("training", "running", "batch")] for _ in range(2)]
    for first, again in zip(*seen, strict=True):
        assert torch.equal(first, again)
    assert not torch.allclose(seen[0][0], seen[0][2])


def test_noise_behind_norms_is_that_of_the_next_update_in_training_and_there_is_none_else(digits):
    noisy, quiet = (snapshot_of(spec_of(*TINY, f"norm={norm}"), digits) for norm in ("noisy_batch", "batch"))
    x, _ = noisy.network.batch
    out = {mode: noisy.network(noisy.params, x, mode) for mode in ("training", "running", "batch")}
    for mode in ("running", "batch"):
        torch.testing.assert_close(out[mode], quiet.network(quiet.params, x, mode))
    torch.testing.assert_close(out["training"], plain(spec_of(*TINY, "norm=noisy_batch"), digits)(x))
    assert not torch.allclose(out["training"], out["batch"])


@pytest.mark.parametrize("norm", ["batch", "noisy_batch"])
def test_nothing_that_is_done_with_it_changes_the_run(norm, digits):
    """Buffers, the model and the snapshot itself."""
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
def test_the_gradient_is_that_of_the_next_update(norm, digits):
    """What a probe differentiates is what the engine does: the same batch, noise and statistics."""
    name, *others = norm
    spec = replace(
        spec_of(*TINY, f"norm={name}", *others, "model.dropout=0.3", "steps=3"),
        probe={"mine": Compare(when=At((0, 2)))},
    )
    outcomes = []
    SerialRun(spec, digits, CPU).train(lambda _, outcome: outcomes.append(outcome))
    rows = outcomes[0].metrics.to_pandas()
    assert rows[rows["metric"] == "difference"]["value"].tolist() == pytest.approx([0.0] * 3, abs=1e-6)


class Compare(ProbeSpec):
    """The largest difference between the gradient of the update and that of the network's loss."""

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


def test_a_still_copy_leaves_the_model_alone(digits):
    net = build_model(spec_of(*TINY, "norm=batch"), digits)
    copy = still(net)
    x = digits.train.x[:8]
    functional_call(copy, (dict(net.named_parameters()), dict(net.named_buffers())), (x,))
    assert net.hidden1.norm_act.norm.num_batches_tracked == 0
    net(x)
    assert net.hidden1.norm_act.norm.num_batches_tracked == 1
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("n", [2, 255, 256, 257, 1025])
def test_parts_are_nearly_equal(n):
    parts = in_parts(torch.arange(n))
    assert torch.cat(parts).tolist() == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert max(map(len, parts)) <= 256


def test_batches_come_from_the_run(digits):
    spec = spec_of(*TINY)
    run = SerialRun(spec, digits, CPU)
    x, y = run._inputs_of_network()["batch"]
    expected = BatchStream(digits, "none", spec.batch_size, spec.seed)(0)
    assert torch.equal(x, expected[0])
    assert torch.equal(y, expected[1])
    network = snapshot_of(spec, digits).network
    probe_x, probe_y = network.probe_batch(5)
    assert torch.equal(probe_x, digits.train.x[network.probe_index[:5]])
    assert torch.equal(probe_y, digits.train.y[network.probe_index[:5]])
    held_out = network.held_out(40)[1]
    assert not torch.equal(held_out, digits.val.y[:40])
    assert torch.equal(held_out.sort()[0], digits.val.y[:40].sort()[0])
