"""Augmentation as tensor code. The random numbers are arguments, so that `torch.func.vmap` can run it."""

from __future__ import annotations

import torch
from torch import Tensor

from bnstudy.data.base import Length
from bnstudy.rng import stream

Draws = dict[str, Tensor]
"""The random numbers of each of N images: the shifts `dy`, `dx` int64 [N] and `flip` bool [N] of crop_flip, and the
number of `rows` int64 [N] with a random length."""


def draw_epoch(n: int, height: int, augment: str, length: Length | None, seed: int, epoch: int) -> Draws:
    """The draws for the n images of an epoch, in the order in which the epoch uses them.

    Vertical and horizontal shifts are independent and uniform on -r..r, where r is an eighth of the height, at least 1.
    Lengths are uniform on length.min..length.max.
    """
    draws: Draws = {}
    if augment == "crop_flip":
        generator = stream(seed, "augment", epoch)
        reach = max(1, height // 8)
        draws["dy"], draws["dx"] = torch.randint(-reach, reach + 1, (2, n), generator=generator)
        draws["flip"] = torch.randint(2, (n,), generator=generator).bool()
    if length is not None:
        draws["rows"] = torch.randint(length.min, length.max + 1, (n,), generator=stream(seed, "length", epoch))
    return draws


def change(x_BCHW: Tensor, draws: Draws, black_C: Tensor) -> Tensor:
    """The images as their draws change them."""
    x_BCHW = crop_flip(x_BCHW, draws, black_C) if "flip" in draws else x_BCHW
    return keep_rows(x_BCHW, draws["rows"]) if "rows" in draws else x_BCHW


def crop_flip(x_BCHW: Tensor, draws: Draws, black_C: Tensor) -> Tensor:
    """Flip each image left to right if `flip`, then move it up by `dy` and left by `dx` pixels.

    `black_C`, the normalized black of each channel, fills the pixels that come in from outside.
    """
    _, C, H, W = x_BCHW.shape
    row_BH = torch.arange(H, device=x_BCHW.device) + draws["dy"][:, None]
    col_BW = torch.arange(W, device=x_BCHW.device) + draws["dx"][:, None]
    inside_row_BH, inside_col_BW = (row_BH >= 0) & (row_BH < H), (col_BW >= 0) & (col_BW < W)
    from_col_BW = torch.where(draws["flip"][:, None], W - 1 - col_BW, col_BW).clamp(0, W - 1)
    pixel_BHW = row_BH.clamp(0, H - 1)[:, :, None] * W + from_col_BW[:, None, :]
    index_BCP = pixel_BHW.flatten(1)[:, None, :].expand(-1, C, -1)
    moved_BCHW = x_BCHW.flatten(2).gather(2, index_BCP).view_as(x_BCHW)
    inside_BHW = inside_row_BH[:, :, None] & inside_col_BW[:, None, :]
    return torch.where(inside_BHW[:, None], moved_BCHW, black_C[:, None, None])


def keep_rows(x_BCHW: Tensor, rows_B: Tensor | int) -> Tensor:
    """The first `rows` of each image, or of all; NaN for the pixels of the others, which the image then lacks."""
    row_H = torch.arange(x_BCHW.shape[2], device=x_BCHW.device)
    kept = row_H < (rows_B[:, None, None] if isinstance(rows_B, Tensor) else rows_B)  # [B, 1, H] or [H]
    return torch.where(kept.unsqueeze(-1), x_BCHW, torch.nan)
