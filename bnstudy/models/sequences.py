"""How networks for sequences read an image: row by row, or some pixels at a time."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from bnstudy.norms.steps import StepNorm


class Present(NamedTuple):
    """Which tokens of a batch of images are present.

    mask: bool [B, T].
    images: float [T], the number of images that have the token.
    share: float [B, T, 1], the weight of each image in the mean over those that have the token.
    """

    mask: Tensor
    images: Tensor
    share: Tensor

    @classmethod
    def of(cls, mask: Tensor) -> Present:
        # The images of a token lie side by side: otherwise products with them are computed run by run.
        weight = mask.t().to(torch.get_default_dtype(), memory_format=torch.contiguous_format).t()
        images = weight.sum(0)
        return cls(mask, images, (weight / images.clamp_min(1)).unsqueeze(2))


def read_tokens(x: Tensor, chunk: int | None = None) -> tuple[Tensor, Tensor]:
    """Images x [B, C, H, W] as tokens [B, T, F] in reading order, and which of these are present, [B, T].

    A token is a row, or `chunk` pixels: F = C * chunk. A NaN is a pixel that the image does not have, as `data.length`
    makes them: a token with one is absent and reads as 0.
    """
    pixels = x.movedim(1, -1)  # [B, H, W, C]
    tokens = pixels.flatten(2) if chunk is None else pixels.flatten(1).unflatten(1, (-1, chunk * x.shape[1]))
    present = ~tokens.isnan().any(-1)
    return tokens.where(present.unsqueeze(-1), 0.0), present


def normalize_tokens(norm: nn.Module, x: Tensor, present: Present) -> Tensor:
    """Tokens x [B, T, C] of all steps behind a norm. A `StepNorm` has to be updated after it."""
    return norm(x, present.share) if isinstance(norm, StepNorm) else norm(x, present.mask)


def token_sizes(shape: tuple[int, int, int], chunk: int | None = None) -> tuple[int, int]:
    """T and F for images of `shape` (C, H, W). A `chunk` divides H * W."""
    channels, height, width = shape
    return (height, channels * width) if chunk is None else (height * width // chunk, channels * chunk)
