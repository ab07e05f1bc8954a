"""A small GoogLeNet."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from bnstudy.models.base import ModelSpec
from bnstudy.models.layers import ActivationName, Dropout, GlobalAveragePool, MaxPool, classifier, conv
from bnstudy.norms.base import NormSpec
from bnstudy.validation import ADDED, PER_RUN, ConfigError

STEM = 192

STAGES = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
"""Szegedy et al. 2015, Table 1: inception (3a) to (5b), by stage. Channels: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5,
pool projection."""

BLOCKS = {3: (1, 1, 1), 6: (2, 2, 2), 9: (2, 5, 2)}
"""Blocks by stage: the first ones of each stage of the table."""


@dataclass(frozen=True)
class Inception(ModelSpec):
    """The inception blocks of GoogLeNet (Szegedy et al. 2015, section 5 and Table 1), for images of 8x8 to 64x64.

    A 3x3 convolution, three stages of blocks, global average pooling, a linear classifier. The layers are stem,
    block1.conv1x1, block1.reduce3x3, ..., out. Each convolution has a norm and an activation of its own, as in
    Ioffe & Szegedy 2015. Differences from the source:
    - The 3x3 convolution replaces its first two stages, which shrink an image to an eighth.
    - Depth 3 and 6 have only the first blocks of each stage; 9 has all.
    - There are no auxiliary classifiers, no local response normalization and, by default, no dropout.

    depth: number of blocks.
    width: a multiplier of the original channels, which are rounded to multiples of 8, so that group norm fits.
    activation: of the hidden layers.
    dropout: fraction of the features dropped before the classifier. 0.4 in the source.
    stride: of the stem. With 2 all blocks have a quarter of the positions, and take about a quarter of the
        time.
    """

    depth: Literal[3, 6, 9] = 3
    width: float = 0.25
    activation: ActivationName = "relu"
    dropout: float = field(default=0.0, metadata=PER_RUN)
    stride: Literal[1, 2] | None = field(default=1, metadata=ADDED)

    def canonical(self) -> Mapping[str, object]:
        return {"stride": None} if self.stride == 1 else {}

    def check(self) -> None:
        self.require(0 < self.width <= 16, "width", "a multiplier above 0 and at most 16")
        self.require(0 <= self.dropout < 1, "dropout", "a fraction in [0, 1)")

    def build(self, norm: NormSpec, shape: tuple[int, int, int], classes: int) -> nn.Module:
        halvings = len(STAGES) - 1 + (self.stride == 2)
        if min(shape[1:]) < 2**halvings:
            raise ConfigError(
                f"model=inception is not allowed with images of {shape[1]}x{shape[2]}: it halves them {halvings} times "
                f"and needs at least {2**halvings}x{2**halvings}; choose larger images or model=mlp."
            )
        model, number = nn.Sequential(), itertools.count(1)
        n_in = self.channels(STEM)
        model.add_module("stem", conv(shape[0], n_in, 3, norm, self.activation, self.stride or 1))
        for stage, blocks in enumerate(BLOCKS[self.depth]):
            if stage > 0:
                model.add_module(f"pool{stage}", MaxPool(3, 2, padding=1))
            for original in STAGES[stage][:blocks]:
                block = Block(n_in, [self.channels(c) for c in original], norm, self.activation)
                model.add_module(f"block{next(number)}", block)
                n_in = block.channels
        model.add_module("mean", GlobalAveragePool())
        if self.dropout:
            model.add_module("dropout", Dropout(self.dropout))
        model.add_module("out", classifier(n_in, classes))
        return model

    def channels(self, original: int) -> int:
        return max(8, 8 * round(original * self.width / 8))


class Block(nn.Module):
    """Four branches, one beside the other: [B, n_in, H, W] -> [B, channels, H, W].

    A 1x1 convolution; a 3x3 behind a 1x1; a 5x5 behind a 1x1; and a 1x1 behind a 3x3 max pooling.

    channels: of each of the six convolutions, in the order of `STAGES`.
    """

    def __init__(self, n_in: int, channels: list[int], norm: NormSpec, activation: ActivationName) -> None:
        super().__init__()
        single, reduced3, wide3, reduced5, wide5, projected = channels
        self.conv1x1 = conv(n_in, single, 1, norm, activation)
        self.reduce3x3 = conv(n_in, reduced3, 1, norm, activation)
        self.conv3x3 = conv(reduced3, wide3, 3, norm, activation)
        self.reduce5x5 = conv(n_in, reduced5, 1, norm, activation)
        self.conv5x5 = conv(reduced5, wide5, 5, norm, activation)
        self.pool = MaxPool(3, 1, padding=1)
        self.project = conv(n_in, projected, 1, norm, activation)
        self.channels = single + wide3 + wide5 + projected

    def forward(self, x: Tensor) -> Tensor:
        branches = (
            self.conv1x1(x),
            self.conv3x3(self.reduce3x3(x)),
            self.conv5x5(self.reduce5x5(x)),
            self.project(self.pool(x)),
        )
        return torch.cat(branches, 1)
