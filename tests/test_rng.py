from __future__ import annotations

import pytest
import torch

from bnstudy.rng import Noise, stream, uniform

WIDE = torch.Size((1000, 128))


def draw(*key):
    return torch.rand(4, generator=stream(*key))


def test_streams_differ_between_seeds_names_and_indices():
    draws = [draw(0, "init", "a"), draw(1, "init", "a"), draw(0, "order", "a"), draw(0, "init", "b")]
    assert len({tuple(d.tolist()) for d in draws}) == 4


def test_a_stream_has_the_same_numbers_in_every_release():
    """Otherwise stored run_ids would stand for other trainings."""
    assert draw(7, "order", 3).tolist() == pytest.approx([0.654408, 0.576633, 0.304377, 0.516326], abs=1e-6)


def noise(seed: int = 0, count: int = 0, shape: torch.Size = WIDE) -> torch.Tensor:
    drawing = Noise()
    drawing.seed_(stream(seed, "dropout", "dropout1"))
    return uniform(drawing.key, torch.tensor(count), shape)


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]).float())[0, 1])


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_uniform(seed):
    u = noise(seed)
    assert u.min() >= 0
    assert u.max() < 1
    counts = torch.histc(u, 64, 0, 1)
    expected = u.numel() / 64
    assert ((counts - expected).square() / expected).sum() < 63 + 5 * (2 * 63) ** 0.5  # chi-squared, 5 sigma


def test_noise_is_uncorrelated_between_steps_seeds_units_and_samples():
    u = noise()
    limit = 5 / u.numel() ** 0.5
    for other in (*(noise(count=c) for c in (1, 2, 1000)), *(noise(seed=s) for s in (1, 2, 1000))):
        assert abs(correlation(u, other)) < limit
        assert abs(correlation(u < 0.5, other < 0.5)) < limit
    for distance in (1, 2, 64):
        assert abs(correlation(u[:, distance:], u[:, :-distance])) < limit
        assert abs(correlation(u[distance:], u[:-distance])) < limit


def test_neighbouring_pairs_of_the_noise_are_uniform_in_the_square():
    u = noise(shape=torch.Size((2**18, 2)))
    counts = torch.bincount((u[:, 0] * 16).long() * 16 + (u[:, 1] * 16).long(), minlength=256)
    expected = len(u) / 256
    assert ((counts - expected).square() / expected).sum() < 255 + 5 * (2 * 255) ** 0.5


def test_one_bit_of_key_or_count_flips_half_the_bits_of_the_noise():
    changes = [(0, 0), (1, 0), (1 << 31, 0), (1 << 32, 0), (1 << 62, 0), (0, 1), (0, 1 << 31)]
    words, *others = ((uniform(torch.tensor(k), torch.tensor(c), WIDE) * 2**24).long() for k, c in changes)
    for other in others:
        flipped = words ^ other
        shares = torch.stack([(flipped >> bit & 1).float().mean() for bit in range(24)])
        torch.testing.assert_close(shares, torch.full((24,), 0.5), atol=5 * 0.5 / WIDE.numel() ** 0.5, rtol=0)


def mix(x: int) -> int:
    x ^= x >> 16
    x = x * 0x21F0AAAD % 2**32
    x ^= x >> 15
    x = x * 0xD35A2D97 % 2**32
    return x ^ x >> 15


@pytest.mark.parametrize("key", [0, 2**63 - 1, 0x0123456789ABCDEF])
@pytest.mark.parametrize("count", [0, 7, 10**9])
def test_the_noise_equals_that_of_unbounded_integers(key, count):
    start = mix(mix(count) ^ key % 2**32)
    stride = mix(start ^ key >> 32) | 1
    expected = [(mix((i * stride + start) % 2**32) >> 8) / 2**24 for i in range(1000)]
    assert uniform(torch.tensor(key), torch.tensor(count), torch.Size((10, 100))).flatten().tolist() == expected


def test_successive_draws_use_successive_counts():
    drawing = Noise()
    drawing.seed_(stream(0, "dropout", "dropout1"))
    assert torch.equal(drawing.draw(10, 100), noise(count=0, shape=torch.Size((10, 100))))
    assert torch.equal(drawing.draw(10, 100), noise(count=1, shape=torch.Size((10, 100))))
