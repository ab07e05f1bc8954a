from __future__ import annotations

import math

import numpy as np
import pytest

from bnstudy.stats.images import image_standard_error


def answers(accuracy: float, seeds: int, images: int, rng: np.random.Generator) -> np.ndarray:
    """Images differ in difficulty, and networks in their answers on the same image."""
    difficulty = rng.beta(8 * accuracy, 8 * (1 - accuracy), images)
    return rng.random((seeds, images)) < difficulty


def by_loops(correct_with: np.ndarray, correct_without: np.ndarray) -> float:
    seeds, m = correct_with.shape
    effects = []
    for image in range(m):
        total = 0.0
        for seed in range(seeds):
            total += float(correct_with[seed, image]) - float(correct_without[seed, image])
        effects.append(total / seeds)
    mean = sum(effects) / m
    return math.sqrt(sum((effect - mean) ** 2 for effect in effects) / (m - 1) / m)


@pytest.mark.parametrize(("seeds", "images"), [(1, 2), (3, 50), (14, 359)])
def test_the_standard_error_equals_a_double_loop(seeds: int, images: int) -> None:
    rng = np.random.default_rng(seeds)
    pair = answers(0.9, seeds, images, rng), answers(0.8, seeds, images, rng)
    assert image_standard_error(*pair) == pytest.approx(by_loops(*pair), rel=1e-12)


def test_a_run_that_counts_as_guessing_has_the_same_share_for_every_image() -> None:
    rng = np.random.default_rng(0)
    with_, without = (answers(p, 5, 200, rng).astype(float) for p in (0.9, 0.8))
    without[3] = 0.1
    assert image_standard_error(with_, without) == pytest.approx(by_loops(with_, without), rel=1e-12)
    # Arms of constants leave the images of the other arm alone.
    alone = with_.mean(0).std(ddof=1) / math.sqrt(200)
    assert image_standard_error(with_, np.full((5, 200), 0.1)) == pytest.approx(alone, rel=1e-12)


def test_the_standard_error_is_the_spread_of_effects_on_other_samples_of_images() -> None:
    """An image is drawn from a large population, with the answers of all networks on it."""
    rng = np.random.default_rng(1)
    with_, without = (answers(p, 6, 50_000, rng) for p in (0.95, 0.9))
    samples = [rng.choice(50_000, 359, replace=False) for _ in range(2_000)]
    effects = [with_[:, some].mean() - without[:, some].mean() for some in samples]
    errors = [image_standard_error(with_[:, some], without[:, some]) for some in samples[:200]]
    assert np.mean(errors) == pytest.approx(np.std(effects), rel=0.05)


def test_equal_arms_have_no_standard_error_and_too_little_data_has_none() -> None:
    same = np.random.default_rng(2).random((4, 30)) < 0.9
    assert image_standard_error(same, same) == 0
    assert math.isnan(image_standard_error(same[:, :1], same[:, :1]))
    assert math.isnan(image_standard_error(same[:0], same[:0]))


def test_arms_with_other_seeds_or_images_are_refused() -> None:
    some = np.ones((4, 30), bool)
    for other in (some[:3], some[:, :29]):
        with pytest.raises(ValueError, match=r"differ in seeds or images: their shapes are \(4, 30\) and"):
            image_standard_error(some, other)
