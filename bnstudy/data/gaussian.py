"""Gaussian noise with made-up targets: what theories of networks at initialization assume of the data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from bnstudy.data.base import DataSpec
from bnstudy.data.cache import Decoded
from bnstudy.data.dataset import Dataset, Split
from bnstudy.data.splits import stratified_order


@dataclass(frozen=True)
class Gaussian(DataSpec):
    """Inputs x ~ N(0, I) of `dim` numbers, [N, 1, 1, dim], made on the fly and the same on every machine.

    target: `labels`, drawn uniformly over the classes and independent of x, so that there is nothing to learn but by
        heart; `linear`, y = A x with A [classes, dim] of independent N(0, 1) entries: a regression without noise.
    classes: how many labels, or values of a target.
    samples: drawn for training and validation, shared out by `val_fraction`.
    test_size: samples of the test split.
    draw: seed of all of it.
    """

    dim: int = 10
    classes: int = 10
    target: Literal["labels", "linear"] = "labels"
    samples: int = 1280
    test_size: int = 256
    draw: int = 0
    val_fraction: float = field(default=0.2, kw_only=True)

    def check(self) -> None:
        super().check()
        for name, least in (("dim", 1), ("classes", 1), ("samples", 2), ("test_size", 1), ("draw", 0)):
            self.require(getattr(self, name) >= least, name, f"{least} or more")
        self.require(self.augment == "none", "augment", "none: there are no images to shift")
        most = self.samples - self._aside
        self.require(self.train_size is None or self.train_size <= most, "train_size", f"at most {most}, or null")

    @property
    def _aside(self) -> int:
        """Samples of the validation split; neither part is empty."""
        return min(max(1, round(self.val_fraction * self.samples)), self.samples - 1)

    def load(self, cache_dir: Path, device: torch.device) -> Dataset:  # noqa: ARG002
        x, y = self._drawn()
        n = self.samples
        made = Decoded(x[:n], y[:n], x[n:], y[n:], ())
        order = in_order(made.train_y)

        def split(x: Tensor, y: Tensor, chosen: Tensor) -> Split:
            return Split(x[chosen].to(device), y[chosen].to(device))

        return Dataset(
            name=self.label,
            classes=self.classes,
            train=split(made.train_x, made.train_y, order[self._aside :][: self.train_size]),
            val=split(made.train_x, made.train_y, order[: self._aside]),
            test=split(made.test_x, made.test_y, in_order(made.test_y)),
            mean=(0.0,),
            std=(1.0,),
            checksum=made.checksum,
            learnable=self.target == "linear",
        )

    def _drawn(self) -> tuple[Tensor, Tensor]:
        """All samples, those of the test split last: x, which does not depend on the kind of target, and y."""
        generator = torch.Generator().manual_seed(self.draw)
        x = torch.randn(self.samples + self.test_size, 1, 1, self.dim, generator=generator)
        if self.target == "labels":
            return x, torch.randint(self.classes, (len(x),), generator=generator)
        a = torch.randn(self.classes, self.dim, generator=generator)
        return x, (x.flatten(1).double() @ a.double().T).float()  # rounded alike on every machine


def in_order(y: Tensor) -> Tensor:
    """Indices in a stratified order where `y` are labels, as they stand where they are values."""
    return torch.arange(len(y)) if y.is_floating_point() else stratified_order(y)
