from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bnstudy.data.augment import Draws, crop_flip
from bnstudy.data.augment import draw_epoch as draw
from bnstudy.data.base import Length


def draw_epoch(n: int, height: int, seed: int, epoch: int) -> Draws:
    return draw(n, height, "crop_flip", None, seed, epoch)


def crop_flip_pixel_by_pixel(x: Tensor, draws: Draws, black: Tensor) -> Tensor:
    B, C, H, W = x.shape
    out = torch.empty_like(x)
    for b in range(B):
        image = x[b].flip(2) if draws["flip"][b] else x[b]
        for i in range(H):
            for j in range(W):
                row, col = i + int(draws["dy"][b]), j + int(draws["dx"][b])
                for c in range(C):
                    out[b, c, i, j] = image[c, row, col] if 0 <= row < H and 0 <= col < W else black[c]
    return out


@pytest.fixture
def black() -> Tensor:
    return torch.tensor([-10.0, -20.0, -30.0])


def test_crop_flip_equals_a_loop_over_pixels(black):
    x = torch.randn(40, 3, 17, 12)
    draws = draw_epoch(40, height=17, seed=3, epoch=0)
    assert torch.equal(crop_flip(x, draws, black), crop_flip_pixel_by_pixel(x, draws, black))


def test_crop_flip_under_vmap_equals_crop_flip_of_each_run(black):
    x = torch.randn(3, 8, 3, 9, 9)
    draws = [draw_epoch(8, height=9, seed=r, epoch=0) for r in range(3)]
    stacked = {name: torch.stack([of_run[name] for of_run in draws]) for name in draws[0]}
    augmented = torch.func.vmap(crop_flip, in_dims=(0, 0, None))(x, stacked, black)
    assert torch.equal(augmented, torch.stack([crop_flip(x[r], draws[r], black) for r in range(3)]))


@pytest.mark.parametrize(("height", "reach"), [(32, 4), (28, 3), (8, 1), (5, 1)])
def test_shifts_are_uniform_up_to_an_eighth_of_the_height(height, reach):
    draws = draw_epoch(5000, height, seed=0, epoch=0)
    for shift in (draws["dy"], draws["dx"]):
        counts = (shift + reach).bincount()
        assert len(counts) == 2 * reach + 1
        assert counts.min() > 0.85 * 5000 / len(counts)
    assert draws["flip"].double().mean() == pytest.approx(0.5, abs=0.03)
    assert not torch.equal(draws["dy"], draws["dx"])


def test_draws_are_a_function_of_seed_and_epoch():
    draws = [draw_epoch(50, 32, seed, epoch) for seed, epoch in [(0, 0), (0, 0), (0, 1), (1, 0)]]
    assert all(torch.equal(draws[0][name], draws[1][name]) for name in ("dy", "dx", "flip"))
    assert not torch.equal(draws[0]["dy"], draws[2]["dy"])
    assert not torch.equal(draws[0]["dy"], draws[3]["dy"])


def test_lengths_are_uniform_and_a_function_of_seed_and_epoch_alone():
    length = Length(min=3, max=7)
    rows, again, augmented, later, other = (
        draw(5000, 8, augment, length, seed, epoch)["rows"]
        for augment, seed, epoch in (
            ("none", 0, 0),
            ("none", 0, 0),
            ("crop_flip", 0, 0),
            ("none", 0, 1),
            ("none", 1, 0),
        )
    )
    counts = rows.bincount()
    assert counts[:3].sum() == 0
    assert len(counts) == 8
    assert counts[3:].min() > 900
    assert torch.equal(rows, again)
    assert torch.equal(rows, augmented)
    assert not torch.equal(rows, later)
    assert not torch.equal(rows, other)
