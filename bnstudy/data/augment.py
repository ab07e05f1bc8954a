"""Augmentation as tensor code. The random numbers are arguments, so that `torch.func.vmap` can run it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bnstudy.rng import stream


class Draws(NamedTuple):
    """The random shift and flip of each of N images: `dy`, `dx` int64 [N] and `flip` bool [N]."""

    dy: Tensor
    dx: Tensor
    flip: Tensor

    def map(self, f: Callable[[Tensor], Tensor]) -> Draws:
        return Draws(*map(f, self))


def draw_epoch(n: int, height: int, seed: int, epoch: int) -> Draws:
    """The draws for the n images of an epoch, in the order in which the epoch uses them.

    Vertical and horizontal shifts are independent and uniform on -r..r, where r is an eighth of the height, at least 1.
    """
    generator = stream(seed, "augment", epoch)
    reach = max(1, height // 8)
    dy_2N = torch.randint(-reach, reach + 1, (2, n), generator=generator)
    return Draws(dy_2N[0], dy_2N[1], torch.randint(2, (n,), generator=generator).bool())


def crop_flip(x_BCHW: Tensor, draws: Draws, black_C: Tensor) -> Tensor:
    """Flip each image left to right if `flip`, then move it up by `dy` and left by `dx` pixels.

    `black_C`, the normalized black of each channel, fills the pixels that come in from outside.
    """
    _, C, H, W = x_BCHW.shape
    row_BH = torch.arange(H, device=x_BCHW.device) + draws.dy[:, None]
    col_BW = torch.arange(W, device=x_BCHW.device) + draws.dx[:, None]
    inside_row_BH, inside_col_BW = (row_BH >= 0) & (row_BH < H), (col_BW >= 0) & (col_BW < W)
    from_col_BW = torch.where(draws.flip[:, None], W - 1 - col_BW, col_BW).clamp(0, W - 1)
    pixel_BHW = row_BH.clamp(0, H - 1)[:, :, None] * W + from_col_BW[:, None, :]
    index_BCP = pixel_BHW.flatten(1)[:, None, :].expand(-1, C, -1)
    moved_BCHW = x_BCHW.flatten(2).gather(2, index_BCP).view_as(x_BCHW)
    inside_BHW = inside_row_BH[:, :, None] & inside_col_BW[:, None, :]
    return torch.where(inside_BHW[:, None], moved_BCHW, black_C[:, None, None])
