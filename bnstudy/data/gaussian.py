"""Gaussian inputs with synthetic targets, as theories of networks at initialization assume."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from bnstudy.data.base import DataSpec
from bnstudy.data.dataset import Dataset, Split, part_size, stratified_order
from bnstudy.store.identity import digest
from bnstudy.validation import ConfigError, gigabytes, machine_bytes

DRAWN = ("dim", "classes", "target", "samples", "test_size", "draw")
"""The settings that determine the data before it is divided. Their digest is the checksum, since kinds of CPU round
the numbers differently."""


@dataclass(frozen=True)
class Gaussian(DataSpec):
    """Inputs x ~ N(0, I) of `dim` numbers, [N, 1, 1, dim], generated on the fly and the same on every machine,
    but for rounding on other kinds of CPU.

    target: `labels`, uniform over the classes and independent of x, so that a network can only memorize them;
        `linear`, y = A x with A [classes, dim] of independent N(0, 1) entries: a regression without noise.
    classes: the number of labels, or of values in a target.
    samples: for training and validation together, divided by `val_fraction`.
    test_size: samples of the test split.
    draw: the seed of all of the data.
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
        classes = 2 if self.target == "labels" else 1
        for name, least in (("dim", 1), ("classes", classes), ("samples", 2), ("test_size", 1), ("draw", 0)):
            self.require(getattr(self, name) >= least, name, f"{least} or more")
        self.require(self.augment == "none", "augment", "none: there are no images to shift")
        self.require(self.scale is None, "scale", "standardized, as the inputs are drawn")
        most = self.samples - self._val_size
        self.require(self.train_size is None or self.train_size <= most, "train_size", f"at most {most}, or null")

    @property
    def _val_size(self) -> int:
        return part_size(self.samples, self.val_fraction)

    def load(self, cache_dir: Path, device: torch.device) -> Dataset:  # noqa: ARG002
        self._check_memory()
        x, y = self._draw()
        n, n_val = self.samples, self._val_size
        order, test = stratified_order(y[:n]), n + stratified_order(y[n:])

        def split(index: Tensor) -> Split:
            return Split(x[index].to(device), y[index].to(device))

        return Dataset(
            name=self.label,
            classes=self.classes,
            train=split(order[n_val:][: self.train_size]),
            val=split(order[:n_val]),
            test=split(test),
            mean=(0.0,),
            std=(1.0,),
            checksum=digest({name: getattr(self, name) for name in DRAWN}),
            is_learnable=self.target == "linear",
        )

    def _check_memory(self) -> None:
        """The data is held twice: as drawn, and divided into splits."""
        count = self.samples + self.test_size
        values = self.classes * (count + self.dim) if self.target == "linear" else 2 * count + self.classes
        need = 2 * 4 * (count * self.dim + values)
        if need > (most := machine_bytes()):
            sizes = ", ".join(
                f"data.{name}={getattr(self, name)}" for name in ("samples", "test_size", "dim", "classes")
            )
            raise ConfigError(
                f"Data with {sizes} needs {gigabytes(need)} of memory; this machine has {gigabytes(most)}."
            )

    def _draw(self) -> tuple[Tensor, Tensor]:
        """All inputs and targets, those of the test split last. The inputs do not depend on the kind of target."""
        generator = torch.Generator().manual_seed(self.draw)
        x = torch.randn(self.samples + self.test_size, 1, 1, self.dim, generator=generator)
        if self.target == "labels":
            return x, torch.randint(self.classes, (len(x),), generator=generator)
        a = torch.randn(self.classes, self.dim, generator=generator)
        # In float64, so that every machine rounds to the same float32.
        return x, (x.flatten(1).double() @ a.double().T).float()
