"""VGG-style networks for small images."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from bnstudy.models.base import ModelSpec
from bnstudy.models.layers import ActivationName, Dropout, GlobalAveragePool, MaxPool, classifier, conv, dense
from bnstudy.norms.base import NormSpec
from bnstudy.validation import ADDED, PER_RUN, ConfigError

CONVOLUTIONS = {8: (2, 2, 2), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
"""Convolutions per stage. 11, 13 and 16 are configurations A, B and D of Simonyan & Zisserman 2015."""

CHANNELS = (64, 128, 256, 512, 512)

DEPTH: Literal[8] = 8
WIDTH = 0.25


@dataclass(frozen=True)
class VGG(ModelSpec):
    """Stages of 3x3 convolutions with a 2x2 max pooling between them, global average pooling, a linear classifier.

    The layers are conv1, conv2, ..., dense1, ..., out. By default one linear layer replaces the original three, as
    usual for small images. Depth 8 has three stages, for images too small for the five stages of the others.

    depth: number of weight layers.
    width: a multiplier of the original 64 to 512 channels.
    activation: of the hidden layers.
    dropout: fraction of the features dropped before the classifier, or behind each dense layer.
    stages: the channels of each convolution by stage, such as [[32,32],[64,64]], instead of depth and width.
    dense: the units of dense layers before the classifier, such as [512,512]. A pooling and the features at all
        positions, as in the original, then take the place of global average pooling. null for none.
    kernel: the height and width of the convolutions, an odd number; null for 3.
    pooling: what halves the image behind a stage: max; average; or stride, which is no pooling, but a stride of 2 in
        the stage's last convolution (Springenberg et al. 2015). null for max.
    """

    depth: Literal[8, 11, 13, 16] = DEPTH
    width: float = WIDTH
    activation: ActivationName = "relu"
    dropout: float = field(default=0.0, metadata=PER_RUN)
    stages: tuple[tuple[int, ...], ...] | None = field(default=None, metadata=ADDED)
    dense: tuple[int, ...] | None = field(default=None, metadata=ADDED)
    kernel: int | None = field(default=None, metadata=ADDED)
    pooling: Literal["max", "average", "stride"] | None = field(default=None, metadata=ADDED)

    def canonical(self) -> Mapping[str, object]:
        return {
            "kernel": None if self.kernel == 3 else self.kernel,
            "pooling": None if self.pooling == "max" else self.pooling,
        }

    def check(self) -> None:
        self.require(64 * self.width >= 1 and self.width <= 16, "width", "a multiplier from 1/64 to 16")
        self.require(0 <= self.dropout < 1, "dropout", "a fraction in [0, 1)")
        if self.stages is not None:
            is_default = (self.depth, self.width) == (DEPTH, WIDTH)
            allowed = f"null with model.depth={self.depth} and model.width={self.width:g}; give one or the other"
            self.require(is_default, "stages", allowed)
            has_convolutions = bool(self.stages) and all(self.stages)
            are_positive = min((channels for stage in self.stages for channels in stage), default=1) >= 1
            allowed = "one or more stages of one or more convolutions with at least 1 channel, such as [[32,32],[64]]"
            self.require(has_convolutions and are_positive, "stages", allowed)
        self.require(min(self.dense or [1]) >= 1, "dense", "a list of widths of at least 1, or null")
        self.require(self.kernel is None or (self.kernel > 0 and self.kernel % 2 == 1), "kernel", "an odd number")

    def build(self, norm: NormSpec, shape: tuple[int, int, int], classes: int) -> nn.Module:
        stages = self.channels()
        height, width = self.check_size(shape, len(stages))
        model, n_in, number = nn.Sequential(), shape[0], itertools.count(1)
        for i, stage in enumerate(stages, 1):
            shrinks = i < len(stages) or self.dense is not None
            for j, channels in enumerate(stage, 1):
                stride = 2 if shrinks and self.pooling == "stride" and j == len(stage) else 1
                layer = conv(n_in, channels, self.kernel or 3, norm, self.activation, stride)
                model.add_module(f"conv{next(number)}", layer)
                n_in = channels
            if shrinks and self.pooling != "stride":
                model.add_module(f"pool{i}", nn.AvgPool2d(2) if self.pooling == "average" else MaxPool(2))
        if self.dense is None:
            model.add_module("mean", GlobalAveragePool())
            if self.dropout:
                model.add_module("dropout", Dropout(self.dropout))
        else:
            model.add_module("flatten", nn.Flatten())
            n_in *= height * width
        for i, units in enumerate(self.dense or [], 1):
            model.add_module(f"dense{i}", dense(n_in, units, norm, self.activation))
            if self.dropout:
                model.add_module(f"dropout{i}", Dropout(self.dropout))
            n_in = units
        model.add_module("out", classifier(n_in, classes))
        return model

    def channels(self) -> tuple[tuple[int, ...], ...]:
        """The channels of each convolution, by stage."""
        if self.stages is not None:
            return self.stages
        wide = [max(1, round(channels * self.width)) for channels in CHANNELS]
        return tuple((channels,) * n for channels, n in zip(wide, CONVOLUTIONS[self.depth], strict=False))

    def check_size(self, shape: tuple[int, int, int], stages: int) -> tuple[int, int]:
        """The height and width of the maps behind the last stage.

        Raises:
            ConfigError: the image is too small to be halved so often.
        """
        halvings = stages - (self.dense is None)
        height, width = shape[1:]
        for _ in range(halvings):
            odd = self.pooling == "stride"
            height, width = (height + odd) // 2, (width + odd) // 2
        if min(height, width) < 1:
            smallest = 2**halvings
            name = f"VGG-{self.depth}" if self.stages is None else "the network"
            key = f"model.depth={self.depth}" if self.stages is None else f"model.stages of {stages} stages"
            raise ConfigError(
                f"{key} is not allowed with images of {shape[1]}x{shape[2]}: {name} halves them {halvings} times and "
                f"needs at least {smallest}x{smallest}; choose model.depth=8, larger images, or model=mlp."
            )
        return height, width
