from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils.checkpoint import checkpoint

from bnstudy.losses import CrossEntropy
from bnstudy.models.tracing import keeps_statistics
from bnstudy.norms.explicit import ExplicitNorm
from bnstudy.probes.base import ProbeSpec, Snapshot
from bnstudy.probes.network import copy_for_probes, in_parts, run_in_mode
from bnstudy.train.build import build_model
from bnstudy.train.loop import start_serial
from bnstudy.validation import ConfigError
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
    start_serial(spec, digits, CPU).train(outcomes.extend)
    rows = outcomes[0][1].metrics.to_pandas()
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
    own = copy_for_probes(net)
    x = digits.train.x[:8]
    functional_call(own, (dict(net.named_parameters()), dict(net.named_buffers())), (x,))
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
        start_serial(spec, digits, CPU).train(lambda _: None)


class Undeclared(ProbeSpec):
    def measure(self, snapshot):
        return {"": snapshot.grads}


class HandWritten(nn.Module):
    """Batch normalization as textbooks write it.

    assigned: the statistics are plain attributes that each batch replaces, and not buffers that it changes in place.
    """

    def __init__(self, channels, assigned=False):
        super().__init__()
        self.assigned = assigned
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        if assigned:
            self.mean, self.var = torch.zeros(channels), torch.ones(channels)
        else:
            self.register_buffer("mean", torch.zeros(channels))
            self.register_buffer("var", torch.ones(channels))

    def forward(self, x):
        mean, var = self.mean, self.var
        if self.training:
            mean, var = x.mean(0), x.var(0, correction=0).clamp(min=0)  # in training only
            if self.assigned:
                self.mean, self.var = 0.9 * self.mean + 0.1 * mean, 0.9 * self.var + 0.1 * var
            else:
                self.mean.mul_(0.9).add_(0.1 * mean)
                self.var.mul_(0.9).add_(0.1 * var)
        return self.gamma * (x - mean) / (var + 1e-5).sqrt() + self.beta


class Subclass(nn.BatchNorm1d):
    """A norm of torch's with code of its own."""

    def forward(self, x):
        return super().forward(x)


class Frozen(nn.Module):
    """A network that keeps its batch norms in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.norm, self.out = nn.BatchNorm1d(64), nn.Linear(64, 10)

    def train(self, mode=True):
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()
        return self

    def forward(self, x):
        return self.out(self.norm(x.flatten(1)))


def run(model, x, mode, params=None):
    """The outputs of a probe's copy in a mode."""
    own = copy_for_probes(model, x)
    params = dict(model.named_parameters()) if params is None else params
    return run_in_mode(own, mode, params, dict(model.named_buffers()), x)


NORMS = {
    "in place": lambda: HandWritten(64),
    "assigned": lambda: HandWritten(64, assigned=True),
    "subclass": lambda: Subclass(64),
    "torch": lambda: nn.BatchNorm1d(64),
    "synchronized": lambda: nn.SyncBatchNorm(64),
}


@pytest.mark.parametrize("norm", NORMS)
def test_batch_mode_is_training_for_what_keeps_statistics_and_evaluation_for_the_rest(norm, digits):
    torch.manual_seed(0)
    x = digits.train.x[:32]
    model = nn.Sequential(nn.Flatten(), NORMS[norm](), nn.Dropout(0.5), nn.Linear(64, 10))
    kept = copy.deepcopy(model)
    z = x.flatten(1)
    normalized = (z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(run(model, x, "batch"), model[3](normalized), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(run(model, x, "running"), model[3](z / (1 + 1e-5) ** 0.5))
    assert vars(model[1]).keys() == vars(kept[1]).keys()
    for module, before in zip(model.modules(), kept.modules(), strict=True):
        states = (
            {**m._buffers, **{n: v for n, v in vars(m).items() if isinstance(v, Tensor)}} for m in (module, before)
        )
        torch.testing.assert_close(*states)


@pytest.mark.parametrize("norm", NORMS)
def test_batches_mapped_over_shared_statistics_equal_a_loop(norm, digits):
    model = nn.Sequential(nn.Flatten(), NORMS[norm](), nn.Linear(64, 10))
    xs = digits.train.x[:24].view(3, 8, 1, 8, 8)
    own, params = copy_for_probes(model, xs[0]), dict(model.named_parameters())
    buffers = dict(model.named_buffers())
    together = vmap(lambda x: run_in_mode(own, "batch", params, buffers, x))(xs)
    torch.testing.assert_close(together, torch.stack([run(model, x, "batch") for x in xs]))


def test_a_frozen_norm_uses_running_statistics_in_every_mode(digits):
    x, model = digits.train.x[:16], Frozen()
    expected = model.out(x.flatten(1) / (1 + 1e-5) ** 0.5)
    for mode in ("training", "batch", "running"):
        torch.testing.assert_close(run(model, x, mode), expected)


def test_a_norm_with_two_names_is_written_out_once():
    norm = nn.BatchNorm1d(4)
    model = nn.Sequential(nn.Linear(4, 4), norm, norm, nn.Sequential(norm))
    written = copy_for_probes(model)
    assert isinstance(written[1], ExplicitNorm)
    assert written[1] is written[2] is written[3][0]


class Recomputed(nn.Linear):
    def forward(self, x):
        return checkpoint(super().forward, x.flatten(1), use_reentrant=False)


def test_a_network_that_recomputes_activations_runs_but_is_not_differentiated(digits):
    model, x = Recomputed(64, 10), digits.train.x[:8]
    own, params = copy_for_probes(model), {name: p.detach() for name, p in model.named_parameters()}
    out = run_in_mode(own, "training", params, {}, x)
    torch.testing.assert_close(out, nn.functional.linear(x.flatten(1), *params.values()))
    with pytest.raises(ConfigError, match="choose probe=light, or leave out the recomputation"):
        grad(lambda params: run_in_mode(own, "training", params, {}, x).sum())(params)


@pytest.mark.filterwarnings("ignore:`torch.jit")  # which is deprecated
def test_a_scripted_module_keeps_no_statistics(digits):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), torch.jit.script(nn.ReLU()), nn.BatchNorm1d(9))
    found = [keeps_statistics(module) for module in copy_for_probes(model, digits.train.x[:8])]
    assert found == [False, False, False, True]


def test_a_random_stream_is_no_statistic(digits):
    """Dropout counts its draws in a buffer."""
    model = build_model(spec_of(*TINY, "norm=batch", "model.dropout=0.5"), digits)
    found = [m for m in copy_for_probes(model, digits.train.x[:8]).modules() if getattr(m, "keeps_statistics", False)]
    assert [type(module) for module in found] == [ExplicitNorm] * 2


def test_finding_statistics_leaves_the_random_state(digits):
    model, before = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 10)), torch.get_rng_state()
    copy_for_probes(model, digits.train.x[:8])
    assert torch.equal(torch.get_rng_state(), before)
