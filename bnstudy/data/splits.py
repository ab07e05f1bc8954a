"""Which images go where: stratified, and the same for every run."""

from __future__ import annotations

import torch
from torch import Tensor

_SEED = 0


def stratified_order(y: Tensor) -> Tensor:
    """A fixed random order of the labels `y` [N], as indices [N], any stretch of which is stratified.

    Image k of a class with n stands at (k + 1/2)/n of the way: the first m hold every class about in its share.
    """
    shuffled = torch.randperm(len(y), generator=torch.Generator().manual_seed(_SEED))
    place = torch.empty(len(y), dtype=torch.float64)
    for label in y.unique():
        members = shuffled[y[shuffled] == label]
        place[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    return shuffled[place[shuffled].argsort(stable=True)]


def stratified_split(y: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """Indices of the `fraction` of images set aside and of the others, each in a stratified order.

    So the first m of the others are a stratified subset, contained in the first m + 1. Neither part is empty.
    """
    order = stratified_order(y)
    aside = min(max(1, round(fraction * len(y))), len(y) - 1)
    return order[:aside], order[aside:]
