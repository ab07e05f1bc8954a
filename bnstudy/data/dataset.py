"""A dataset as training sees it: three splits of normalized images on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bnstudy.data.cache import Decoded
from bnstudy.data.splits import stratified_order


@dataclass(frozen=True, eq=False)
class Split:
    """Images `x` float32 [N, C, H, W], normalized, and their labels `y` int64 [N], or targets float32 [N, K]."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False)
class Dataset:
    """The splits of a dataset on one device.

    train, val, test: in a stratified order, so that the first m images of each are a stratified sample of it.
    mean, std: per channel, of the training split, where black is 0 and white 1; std 1 for a constant channel.
    checksum: SHA-256 of the decoded images and labels before they were split.
    classes: how many, or how many values a target has.
    learnable: whether there is anything to learn but by heart, so that to guess at the end is to have failed.
    """

    name: str
    classes: int
    train: Split
    val: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    checksum: str
    learnable: bool = True

    @property
    def is_labelled(self) -> bool:
        """Whether each image belongs to a class, so that there is an accuracy."""
        return not self.train.y.is_floating_point()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        _, channels, height, width = self.train.x.shape
        return channels, height, width

    @property
    def black(self) -> Tensor:
        """What black is after normalization: [C], on the device."""
        pixel = torch.zeros(1, len(self.mean), 1, 1, dtype=torch.uint8, device=self.train.x.device)
        return normalized(pixel, self.mean, self.std).flatten()


def assemble(name: str, decoded: Decoded, train: Tensor, val: Tensor, device: torch.device) -> Dataset:
    """The dataset whose training and validation splits are the decoded training images of these indices."""
    train_x = decoded.train_x[train]
    mean, std = moments(train_x)

    test = stratified_order(decoded.test_y)

    def split(x_NCHW: Tensor, y_N: Tensor) -> Split:
        return Split(normalized(x_NCHW.to(device), mean, std), y_N.to(device))

    return Dataset(
        name=name,
        classes=len(decoded.classes),
        train=split(train_x, decoded.train_y[train]),
        val=split(decoded.train_x[val], decoded.train_y[val]),
        test=split(decoded.test_x[test], decoded.test_y[test]),
        mean=mean,
        std=std,
        checksum=decoded.checksum,
    )


def normalized(x_NCHW: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 images as float32 with the mean and standard deviation of each channel taken out."""
    mean_C11 = torch.tensor(mean, device=x_NCHW.device).view(-1, 1, 1)
    std_C11 = torch.tensor(std, device=x_NCHW.device).view(-1, 1, 1)
    return x_NCHW.float().div_(255).sub_(mean_C11).div_(std_C11)


def moments(x_NCHW: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images scaled to 0..1, where 0 stands as 1."""
    # From counts, which are exact: a float sum over so many pixels depends on the number of threads.
    counts_CL = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in x_NCHW.unbind(1)])
    share_CL = counts_CL.double() / counts_CL.sum(1, keepdim=True)
    levels_L = torch.arange(256, dtype=torch.float64) / 255
    mean_C = share_CL @ levels_L
    std_C = (share_CL * (levels_L - mean_C[:, None]).square()).sum(1).sqrt()
    return tuple(mean_C.tolist()), tuple(std_C.where(std_C > 0, 1.0).tolist())
