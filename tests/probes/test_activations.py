from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from bnstudy.data.dataset import Dataset
from bnstudy.probes.activations import Activations, drift, effective_rank, on_grid, percentiles
from bnstudy.probes.base import Snapshot
from bnstudy.probes.network import in_parts
from bnstudy.probes.units import DeadUnits
from bnstudy.run import RunSpec
from bnstudy.train import checkpoint
from bnstudy.train.loop import Training, start_serial, start_stacked
from bnstudy.train.probing import observe
from bnstudy.when import At
from tests.conftest import CPU, spec_of
from tests.probes.conftest import TINY, changed, snapshot_of
from tests.train.helpers import ENGINES, assert_same_outcome, train_all, train_one, train_until, values_by_step

SMALL = {
    "mlp": TINY,
    "vgg": ("model=vgg", "model.width=0.03125"),
    "resnet": ("model=resnet", "model.width=2"),
}


def snapshot_with(probe: Activations, spec: RunSpec, digits: Dataset, x: Tensor) -> Snapshot:
    """The snapshot before training, with x as probe batch."""
    bare = snapshot_of(spec, digits, double=False)
    network = bare.network
    probes, state = {"it": probe}, (bare.params, network.buffers)
    parts = [observe(network.model, network.seen, "running", probes, *state, part) for part in in_parts(x)]
    return changed(bare, observed=tree_map(lambda *of_parts: torch.cat(of_parts), *parts)["it"])


def pre_activations(spec: RunSpec, digits: Dataset, x: Tensor) -> dict[str, np.ndarray]:
    """Pre-activations and outputs by layer."""
    bare = snapshot_of(spec, digits, double=False)
    out, z = bare.network.inside(bare.params, x, mode="running")
    return {layer: v.double().numpy() for layer, v in {**z, "out": out}.items()}


def slow_percentile(values: np.ndarray, q: int) -> float:
    return float(np.percentile(values, q, method="inverted_cdf"))


def slow_rank(features: np.ndarray) -> float:
    s = np.linalg.svd(features - features.mean(0), compute_uv=False)
    share = s / s.sum()
    return math.exp(-sum(p * math.log(p) for p in share if p > 0))


@pytest.mark.parametrize("model", SMALL)
@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_distributions_equal_those_of_the_pre_activations(model, norm, digits):
    spec, x = spec_of(*SMALL[model], f"norm={norm}"), digits.train.x[:300]
    probe = Activations(samples=200)
    measured = probe.measure(snapshot_with(probe, spec, digits, x))
    for layer, z in pre_activations(spec, digits, x[:200]).items():
        places = [0, 4] if z.shape[-1] == 1 else [z.shape[-1] // 4, 3 * z.shape[-1] // 4]
        values = z if z.ndim == 2 else np.stack([z[:, :, i, j] for i in places for j in places], -1)
        ours = {metric: of[layer].item() for metric, of in measured.items() if layer in of}
        assert ours["z_mean"] == pytest.approx(values.mean(), abs=1e-5)
        assert ours["z_std"] == pytest.approx(values.std(), rel=1e-4)
        for q in (15, 50, 85):
            assert ours[f"z_q{q}"] == pytest.approx(slow_percentile(values, q), abs=1e-5)
            assert ours[f"unit_q{q}"] == pytest.approx(slow_percentile(values[:, 0], q), abs=1e-5)
        a = z if layer == "out" else z.clip(min=0)
        assert ours["effective_rank"] == pytest.approx(slow_rank(a if a.ndim == 2 else a.mean((2, 3))), rel=1e-3)
    assert list(measured["z_mean"]) == list(pre_activations(spec, digits, x[:2]))


@pytest.mark.parametrize("overrides", [("norm=noisy_batch",), ("norm=batch", "model.dropout=0.5")])
def test_observing_in_training_mode_adds_noise_and_leaves_training_unchanged(overrides, digits):
    spec = replace(spec_of(*TINY, *overrides), steps=2)
    ends = {}
    for statistics in ("batch", "training"):
        run = start_serial(
            replace(spec, probe={"mine": Activations(statistics=statistics, when=At((0, 1)))}), digits, CPU
        )
        ends[statistics] = values_by_step(train_one(run).metrics, "", "z_std", "out"), run.state()["params"]
    assert torch.equal(ends["batch"][1], ends["training"][1])
    still, unsteady = (z_std for z_std, _ in ends.values())
    assert still.keys() == unsteady.keys() == {0, 1, 2}
    assert all(abs(still[step] - unsteady[step]) > 1e-3 for step in still)


def test_training_mode_without_noise_equals_batch_statistics(digits):
    spec = replace(spec_of(*TINY, "norm=batch"), steps=2)
    probes = [{"mine": Activations(statistics=statistics, when=At((0, 1)))} for statistics in ("batch", "training")]
    first, second = (train_one(start_serial(replace(spec, probe=probe), digits, CPU)).metrics for probe in probes)
    assert first.equals(second)


@pytest.mark.parametrize(("shape", "positions"), [((2, 3, 8, 8), 4), ((2, 3, 1, 5), 2), ((2, 3, 1, 1), 1)])
def test_at_most_four_positions_of_a_feature_map_are_kept(shape, positions):
    assert on_grid(torch.rand(shape)).shape == (2, 3, positions)


@pytest.mark.parametrize("n", [2, 3, 20, 101])
def test_percentiles_invert_the_empirical_distribution(n):
    values = torch.randn(n, 4, generator=torch.Generator().manual_seed(n))
    for q, found in zip((15, 50, 85), percentiles(values), strict=True):
        assert found.tolist() == [slow_percentile(values[:, unit].numpy(), q) for unit in range(4)]


@pytest.mark.parametrize(
    ("activation", "low", "high"),
    [("sigmoid", math.log(0.05 / 0.95), math.log(0.95 / 0.05)), ("tanh", -1.4722, 1.4722)],
)
def test_outputs_in_the_outer_twentieth_of_the_range_are_saturated(activation, low, high, digits):
    spec = spec_of(*TINY, "norm=none", "init.gain=4", f"model.activation={activation}")
    x, probe = digits.train.x[:100], Activations()
    shares = probe.measure(snapshot_with(probe, spec, digits, x))["saturated_share"]
    z = pre_activations(spec, digits, x)
    slow = {
        layer: sum(v < low or v > high for v in z[layer].flatten()) / z[layer].size for layer in ("hidden1", "hidden2")
    }
    assert {layer: share.item() for layer, share in shares.items()} == pytest.approx(slow)
    assert 0 < slow["hidden1"] < 1


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "gelu"])
def test_activations_without_two_bounds_do_not_saturate(activation, digits):
    spec, probe = spec_of(*TINY, f"model.activation={activation}"), Activations()
    assert probe.measure(snapshot_with(probe, spec, digits, digits.train.x[:20]))["saturated_share"] == {}


def orthonormal(n: int, columns: int) -> Tensor:
    """Columns that are orthogonal to each other and to the vector of ones."""
    draw = torch.randn(n, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.linalg.qr(draw - draw.mean(0))[0]


@pytest.mark.parametrize(("n", "units"), [(50, 8), (9, 20)])
def test_the_effective_rank_of_equal_directions_is_their_number(n, units):
    basis = orthonormal(n, 6)
    mixed = basis @ torch.linalg.qr(torch.randn(units, 6, dtype=torch.float64))[0].T + 3
    assert effective_rank(mixed.float()).item() == pytest.approx(6, rel=1e-5)


def test_the_effective_rank_is_the_exponential_of_an_entropy():
    features = orthonormal(40, 2) * torch.tensor([3.0, 1.0])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(features.float()).item() == pytest.approx(math.exp(entropy), rel=1e-5)


def test_rounding_adds_nothing_to_the_effective_rank():
    one = torch.outer(torch.linspace(0.1, 0.7, 60), torch.linspace(-1, 1, 30)) + 1.3
    assert effective_rank(one).item() == pytest.approx(1, abs=1e-3)


def test_constant_or_infinite_features_have_no_effective_rank():
    assert effective_rank(torch.full((20, 5), 0.1)).isnan()
    assert effective_rank(torch.tensor([[1.0, 2.0], [math.nan, 3.0], [math.inf, 0.0]])).isnan()


def test_the_drift_is_the_movement_of_the_units_percentiles(digits):
    spec, x, probe = spec_of(*TINY, "norm=none"), digits.train.x[:150], Activations()
    first = snapshot_with(probe, spec, digits, x)
    moved = {layer: seen * 1.5 + torch.arange(seen.shape[1])[:, None] for layer, seen in first.observed.items()}
    second = changed(first, observed=moved, memory=probe.remember(first))
    assert probe.measure(first)["z_drift"] == probe.measure(first)["z_drift_relative"] == {}
    measured = probe.measure(second)
    for layer, seen in first.observed.items():
        was, now = seen[:, :, 1].numpy(), moved[layer][:, :, 1].numpy()  # 0 has the outputs
        far, relative = [], []
        for unit in range(was.shape[1]):
            spread = slow_percentile(was[:, unit], 85) - slow_percentile(was[:, unit], 15)
            for q in (15, 50, 85):
                far.append(abs(slow_percentile(now[:, unit], q) - slow_percentile(was[:, unit], q)))
                relative.append(far[-1] / spread)
        assert measured["z_drift"][layer].item() == pytest.approx(np.mean(far), rel=1e-4)
        assert measured["z_drift_relative"][layer].item() == pytest.approx(np.mean(relative), rel=1e-4)


def test_units_without_spread_have_no_relative_drift():
    before = torch.tensor([[0.0, 5.0, 0.1], [1.0, 5.0, 0.1], [2.0, 5.0, 0.1 + 1e-8]])
    absolute, relative = drift(before + torch.tensor([1.0, 3.0, 2.0]), before)
    assert absolute.item() == pytest.approx(2)
    assert relative.item() == pytest.approx(0.5)
    assert drift(before[:, 1:] + 1, before[:, 1:])[1].isnan()


def probed_spec(*overrides: str, **changes) -> RunSpec:
    """20 steps with five measurements."""
    when = At((0, 4, 8, 14, 20))
    probes = {"activations": Activations(when=when), "dead": DeadUnits(when=when)}
    return replace(spec_of(*TINY, "model.width=16", "norm=batch", "lr=0.5", *overrides), probe=probes, **changes)


def test_drift_starts_with_the_second_measurement(digits):
    metrics = train_one(start_serial(probed_spec(), digits, CPU)).metrics
    assert list(values_by_step(metrics, "", "z_q50", "hidden2")) == [0, 4, 8, 14, 20]
    assert list(values_by_step(metrics, "", "z_drift", "hidden2")) == [4, 8, 14, 20]


def test_probes_of_a_diverging_run_do_not_stop_the_others(digits):
    good, bad = probed_spec("norm=none", "lr=0.1"), probed_spec("norm=none", "lr=1e30", seed=1)
    left = train_all(start_stacked([good, bad], digits, CPU))
    assert (left[good.run_id].status, left[bad.run_id].status) == ("finished", "diverged")


@pytest.mark.parametrize("first", ENGINES)
@pytest.mark.parametrize("second", ENGINES)
def test_the_memory_of_probes_survives_a_resume(first, second, digits, tmp_path):
    specs = [probed_spec(seed=seed) for seed in range(3 if first == second == "stacked" else 1)]
    whole = train_all(ENGINES[second](specs, digits))
    training: Training = ENGINES[first](specs, digits)
    train_until(training, 11)
    for run, spec in enumerate(specs):
        checkpoint.save(tmp_path / spec.run_id, spec.run_id, "", training.state(run))
    training = ENGINES[second](specs, digits)
    training.load([checkpoint.load(tmp_path / spec.run_id, spec.run_id, "", CPU) for spec in specs])
    for run_id, end in train_all(training).items():
        if first == second:
            assert end.metrics.equals(whole[run_id].metrics)
        assert_same_outcome(end, whole[run_id], tolerance=1e-3)


@pytest.mark.parametrize("leaving", [[0], [1], [0, 2], [1, 2], [0, 1, 2]])
def test_the_memory_of_a_probe_stays_with_its_run_when_others_leave(leaving, digits):
    specs = [probed_spec(seed=seed) for seed in range(4)]
    whole = {spec.run_id: train_one(start_stacked([spec], digits, CPU)) for spec in specs}
    stack = start_stacked(specs, digits, CPU)
    train_until(stack, 6)
    stack.leave([specs[run].run_id for run in leaving])
    left = train_all(stack)
    assert left.keys() == {spec.run_id for run, spec in enumerate(specs) if run not in leaving}
    for run_id, end in left.items():
        assert end.metrics.equals(whole[run_id].metrics)
