from __future__ import annotations

import pytest
import torch
from torch import nn

from bnstudy.norms.base import Layout
from bnstudy.norms.batch import BatchNorm, GhostBatchNorm, NoisyBatchNorm
from bnstudy.rng import stream, uniform

X = torch.randn(6, 8, 5, 5, generator=torch.Generator().manual_seed(0))


def test_batch_norm_normalizes_by_mean_and_biased_variance_of_the_batch():
    mean, var = X.mean((0, 2, 3), keepdim=True), X.var((0, 2, 3), keepdim=True, unbiased=False)
    torch.testing.assert_close(BatchNorm(eps=1e-3).build(8, layout="maps")(X), (X - mean) / (var + 1e-3).sqrt())


def test_running_statistics_are_updated_by_momentum_with_the_unbiased_variance():
    layer = BatchNorm(momentum=0.3).build(8, layout="maps")
    layer(X)
    torch.testing.assert_close(layer.running_mean, 0.3 * X.mean((0, 2, 3)))
    torch.testing.assert_close(layer.running_var, 0.7 + 0.3 * X.var((0, 2, 3)))


def test_evaluation_without_running_statistics_uses_those_of_the_batch():
    layer = BatchNorm(track_running_stats=False).build(8, layout="maps")
    torch.testing.assert_close(layer.eval()(X), layer.train()(X))


def test_running_statistics_without_momentum_are_the_average_over_all_steps():
    batches = torch.stack([X, 3 * X + 1, 0.2 * X])
    ours, theirs = BatchNorm(momentum=None).build(8, layout="maps"), nn.BatchNorm2d(8, momentum=None)
    for x in batches:
        ours(x), theirs(x)
    means = batches.mean((1, 3, 4))
    torch.testing.assert_close(ours.running_mean, means.mean(0))
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    assert ours.num_batches_tracked == 3
    torch.testing.assert_close(ours.eval()(X), theirs.eval()(X))


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 5, 5)])
def test_each_ghost_batch_is_normalized_on_its_own(shape):
    x, layer = torch.randn(shape), GhostBatchNorm(size=2).build(8, layout="maps" if len(shape) == 4 else "units")
    parts = [nn.functional.batch_norm(part, None, None, training=True) for part in x.split(2)]
    torch.testing.assert_close(layer(x), torch.cat(parts), rtol=1e-4, atol=1e-4)  # pairs of close values: var near eps


def test_running_statistics_are_updated_once_a_batch_with_the_average_over_ghost_batches():
    layer = GhostBatchNorm(size=3, momentum=0.3).build(8, layout="maps")
    layer(X)
    means, variances = ([f(part, (0, 2, 3)) for part in X.split(3)] for f in (torch.mean, torch.var))
    torch.testing.assert_close(layer.running_mean, 0.3 * (means[0] + means[1]) / 2)
    torch.testing.assert_close(layer.running_var, 0.7 + 0.3 * (variances[0] + variances[1]) / 2)
    assert layer.num_batches_tracked == 1


@pytest.mark.parametrize(("samples", "parts"), [(7, [4, 3]), (11, [4, 4, 3]), (5, [5]), (2, [2]), (6, [3, 3])])
def test_a_batch_that_the_size_does_not_divide_is_cut_as_evenly_as_possible(samples, parts):
    x = torch.randn(samples, 8)
    layer = GhostBatchNorm(size=3, track_running_stats=False).build(8, layout="units").eval()
    expected = [nn.functional.batch_norm(part, None, None, training=True) for part in x.split(parts)]
    torch.testing.assert_close(layer(x), torch.cat(expected))


def noisy(spec: NoisyBatchNorm, layout: Layout = "maps", seed: int = 0) -> nn.Module:
    layer = spec.build(8, layout)
    layer[1].seed_(stream(seed, "dropout", "hidden1"))
    return layer


def test_the_noise_equals_a_loop_over_units_and_samples():
    spec = NoisyBatchNorm(shift=0.5, scale=1.25, jitter=0.1)
    layer, plain = noisy(spec), BatchNorm().build(8, layout="maps")
    for step in range(2):
        draws = uniform(layer[1].key, torch.tensor(step), torch.Size((2 + 3 * 6, 8))).double()
        expected = plain(X).detach()
        for unit in range(8):
            mean, scale = 0.5 * (2 * draws[0, unit] - 1), 1 + 0.25 * draws[1, unit]
            for sample in range(6):
                u, v, w = (draws[2 + 6 * i + sample, unit] for i in range(3))
                gauss = (-2 * (1 - v).log()).sqrt() * (2 * torch.pi * w).cos()
                expected[sample, unit] *= scale + 0.1 * gauss
                expected[sample, unit] += mean + 0.1 * (2 * u - 1)
        torch.testing.assert_close(layer(X), expected)


def test_the_noise_has_its_documented_distribution():
    """First one sample of many units, then many samples of one unit."""
    noise = NoisyBatchNorm().build(1, layout="units")[1]
    shift, scale = noise.draw_shift_and_scale(1, 40_000)
    assert float(shift.mean()) == pytest.approx(0, abs=0.01)
    assert float(shift.var()) == pytest.approx((1 + 0.2**2) / 12, rel=0.05)
    assert float(scale.mean()) == pytest.approx(1.125, abs=0.01)
    assert float(scale.var()) == pytest.approx(0.25**2 / 12 + 0.1**2, rel=0.05)
    shift, scale = noise.draw_shift_and_scale(40_000, 1)
    assert abs(float(shift.mean())) < 0.5
    assert float(shift.var()) == pytest.approx(0.2**2 / 12, rel=0.05)
    assert float(scale.var()) == pytest.approx(0.1**2, rel=0.05)
    kurtosis = float((((scale - scale.mean()) / scale.std()) ** 4).mean())
    assert kurtosis == pytest.approx(3, abs=0.2)  # that of a normal distribution


def test_the_noise_differs_between_steps_and_seeds_and_is_absent_in_evaluation():
    layer, other = noisy(NoisyBatchNorm()), noisy(NoisyBatchNorm(), seed=1)
    first, second = layer(X), layer(X)
    assert not torch.allclose(first, second, atol=0.1)
    assert not torch.allclose(first, other(X), atol=0.1)
    assert torch.equal(layer.eval()(X), layer[0].eval()(X))
    assert layer[1].count == 2


def test_noisy_batch_norm_without_noise_is_batch_norm():
    quiet = noisy(NoisyBatchNorm(shift=0, scale=1, jitter=0))
    torch.testing.assert_close(quiet(X), BatchNorm().build(8, layout="maps")(X))
