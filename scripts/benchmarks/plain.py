"""Networks in plain torch.nn: those of bnstudy's model=mlp, vgg and resnet, as a script without bnstudy has them."""

from __future__ import annotations

import math
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from bnstudy.models.base import ModelSpec
from bnstudy.models.mlp import MLP
from bnstudy.models.resnet import ResNet
from bnstudy.models.vgg import VGG

Shape = tuple[int, int, int]


def plain_network(spec: ModelSpec, norm: str, shape: Shape, classes: int) -> nn.Module:
    if isinstance(spec, MLP):
        return plain_mlp([math.prod(shape), *[spec.width] * spec.depth, classes], norm)
    if isinstance(spec, VGG):
        return plain_vgg(spec.channels(), norm, shape[0], classes)
    assert isinstance(spec, ResNet)
    return PlainResNet(spec.width, (spec.depth - 2) // 6, norm, shape[0], classes)


def plain_mlp(sizes: list[int], norm: str) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for n_in, n_out in pairwise(sizes[:-1]):
        layers.append(nn.Linear(n_in, n_out, bias=norm == "none"))
        layers += [nn.BatchNorm1d(n_out)] if norm == "batch" else []
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def plain_vgg(stages: tuple[tuple[int, ...], ...], norm: str, channels: int, classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for i, stage in enumerate(stages):
        layers += [nn.MaxPool2d(2)] if i else []
        for n_out in stage:
            layers += [*conv(channels, n_out, norm), nn.ReLU()]
            channels = n_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def conv(n_in: int, n_out: int, norm: str, stride: int = 1) -> list[nn.Module]:
    layer = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=norm == "none")
    return [layer, nn.BatchNorm2d(n_out)] if norm == "batch" else [layer]


class PlainResNet(nn.Module):
    """He et al. 2016, section 4.2, with `blocks` blocks a stage."""

    def __init__(self, width: int, blocks: int, norm: str, channels: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv(channels, width, norm), nn.ReLU())
        widths = [width] * (blocks + 1) + [2 * width] * blocks + [4 * width] * blocks
        self.blocks = nn.Sequential(*(PlainBlock(n_in, n_out, norm) for n_in, n_out in pairwise(widths)))
        self.out = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.blocks(self.stem(x)).mean((2, 3)))


class PlainBlock(nn.Module):
    def __init__(self, n_in: int, n_out: int, norm: str) -> None:
        super().__init__()
        self.stride, self.added = n_out // n_in, n_out - n_in
        self.branch = nn.Sequential(*conv(n_in, n_out, norm, self.stride), nn.ReLU(), *conv(n_out, n_out, norm))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.added:
            shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))
        return F.relu(self.branch(x) + shortcut)
