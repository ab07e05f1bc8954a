"""A dataset in memory: decoded images, and three splits of scaled images on the device."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, assert_never

import torch
from torch import Tensor

from bnstudy.store.checksums import SPLITS

_SEED = 0  # of the order that all splits are cut from

Scale = Literal["standardized", "unit", "centred", "levels"]

UNBALANCED = 1.5
"""A dataset is unbalanced if its largest class has more than this many times the training images of its smallest."""


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """Images uint8 [N, C, H, W] and labels int64 [N] in the order of their source; `classes` names the labels."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: tuple[str, ...]

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of the shapes and contents of the tensors."""
        return checksum_of([self.train_x, self.train_y, self.test_x, self.test_y])


@dataclass(frozen=True, eq=False)
class Split:
    """Scaled images `x` float32 [N, C, H, W] with labels `y` int64 [N], or with targets `y` float32 [N, K]."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False)
class Dataset:
    """The splits of a dataset on one device.

    classes: the number of classes, or of values in a target.
    train, val, test: each in a stratified order, so that its first m images are a stratified sample.
    mean, std: what is subtracted from each channel and what it is then divided by, with black 0 and white 1; if images
        are standardized, the moments of the training split, with a std of 1 for a constant channel.
    checksum: of the images and labels before they were split, so that it does not depend on `train_size`,
        `test_size` or `val_fraction`; by default of the splits, with SPLITS before it. Runs are compared only if it is
        the same.
    is_learnable: whether labels depend on inputs. If not, a run that ends at chance has not failed.
    """

    name: str
    classes: int
    train: Split
    val: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    checksum: str = ""
    is_learnable: bool = True

    def __post_init__(self) -> None:
        if not self.checksum:
            tensors = [tensor for split in (self.train, self.val, self.test) for tensor in (split.x, split.y)]
            object.__setattr__(self, "checksum", SPLITS + checksum_of(tensors))

    @property
    def is_labelled(self) -> bool:
        """Whether each image belongs to a class, so that a network has an accuracy."""
        return not self.train.y.is_floating_point()

    @property
    def guessing(self) -> dict[str, float | None]:
        """By split, the accuracy of naming its most frequent class for every image; None without labels."""
        splits = {"val": self.val.y, "test": self.test.y}
        return {name: int(y.bincount().max()) / len(y) if self.is_labelled else None for name, y in splits.items()}

    @cached_property
    def is_unbalanced(self) -> bool:
        """Whether the classes differ so much in size that runs also record their balanced accuracy.

        The training images include those for validation: a small `train_size` has classes of uneven sizes by chance.
        """
        if not self.is_labelled or not self.is_learnable:
            return False
        sizes = torch.cat([self.train.y, self.val.y]).bincount(minlength=self.classes)
        return bool(sizes.max() > UNBALANCED * sizes.min())

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        _, channels, height, width = self.train.x.shape
        return channels, height, width

    @cached_property
    def in_float64(self) -> Dataset:
        """The same images, and targets that are no labels, in float64."""

        def widen(split: Split) -> Split:
            return Split(split.x.double(), split.y if self.is_labelled else split.y.double())

        return replace(self, train=widen(self.train), val=widen(self.val), test=widen(self.test))

    @property
    def black(self) -> Tensor:
        """The scaled value of a black pixel: [C], on the device."""
        pixel = torch.zeros(1, len(self.mean), 1, 1, dtype=torch.uint8, device=self.train.x.device)
        return normalize(pixel, self.mean, self.std).flatten().to(self.train.x.dtype)


def checksum_of(tensors: Sequence[Tensor]) -> str:
    """SHA-256 of the shapes and contents."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def assemble(
    name: str,
    decoded: DecodedImages,
    train: Tensor,
    val: Tensor,
    device: torch.device,
    scale: Scale = "standardized",
    test_size: int | None = None,
) -> Dataset:
    """The dataset with splits from the decoded training images of indices `train` and `val`, and `test_size` or all
    of the test images."""
    mean, std = offset_and_divisor(decoded.train_x[train], scale)
    test = stratified_order(decoded.test_y)[:test_size]

    def split(x_NCHW: Tensor, y_N: Tensor) -> Split:
        return Split(normalize(x_NCHW.to(device), mean, std), y_N.to(device))

    return Dataset(
        name=name,
        classes=len(decoded.classes),
        train=split(decoded.train_x[train], decoded.train_y[train]),
        val=split(decoded.train_x[val], decoded.train_y[val]),
        test=split(decoded.test_x[test], decoded.test_y[test]),
        mean=mean,
        std=std,
        checksum=decoded.checksum,
    )


def normalize(x_NCHW: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 images as float32 in 0..1, minus `mean` and divided by `std` of each channel."""
    mean_C11 = torch.tensor(mean, device=x_NCHW.device).view(-1, 1, 1)
    std_C11 = torch.tensor(std, device=x_NCHW.device).view(-1, 1, 1)
    return x_NCHW.float().div_(255).sub_(mean_C11).div_(std_C11)


def offset_and_divisor(x_NCHW: Tensor, scale: Scale) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What is subtracted from each channel and what it is then divided by, given the training images uint8."""
    channels = x_NCHW.shape[1]
    match scale:
        case "standardized":
            return moments(x_NCHW)
        case "unit":
            return (0.0,) * channels, (1.0,) * channels
        case "centred":
            return (0.5,) * channels, (0.5,) * channels
        case "levels":
            return moments(x_NCHW)[0], (1 / 255,) * channels
        case _:
            assert_never(scale)


def moments(x_NCHW: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images scaled to 0..1; a standard deviation of 0 becomes 1."""
    # From counts, which are exact: a float sum over so many pixels depends on the number of threads.
    counts_CL = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in x_NCHW.unbind(1)])
    fraction_CL = counts_CL.double() / counts_CL.sum(1, keepdim=True)
    level_L = torch.arange(256, dtype=torch.float64) / 255
    mean_C = fraction_CL @ level_L
    std_C = (fraction_CL * (level_L - mean_C[:, None]).square()).sum(1).sqrt()
    return tuple(mean_C.tolist()), tuple(std_C.where(std_C > 0, 1.0).tolist())


def stratified_order(y: Tensor) -> Tensor:
    """A fixed random order of the labels `y` [N], as indices [N]. Any stretch of it is stratified.

    Image k of a class of n images is placed at the fraction (k + 1/2)/n of the order. Targets that are not labels keep
    their order.
    """
    if y.is_floating_point():
        return torch.arange(len(y))
    shuffled = torch.randperm(len(y), generator=torch.Generator().manual_seed(_SEED))
    place = torch.empty(len(y), dtype=torch.float64)
    for label in y.unique():
        members = shuffled[y[shuffled] == label]
        place[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    return shuffled[place[shuffled].argsort(stable=True)]


def part_size(n: int, fraction: float) -> int:
    """The size of a part of `n` samples such that neither the part nor the rest is empty."""
    return min(max(1, round(fraction * n)), n - 1)


def stratified_split(y: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """Indices of a `fraction` of the images and of the rest, each in a stratified order. Neither part is empty.

    The first m of a part are a stratified sample that the first m + 1 contain.
    """
    order = stratified_order(y)
    n = part_size(len(y), fraction)
    return order[:n], order[n:]
