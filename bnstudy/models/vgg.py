"""VGG-style networks for small images."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from bnstudy.models.base import ModelSpec
from bnstudy.models.layers import ActivationName, Dropout, GlobalAveragePool, classifier, conv3x3
from bnstudy.norms.base import NormSpec
from bnstudy.validation import PER_RUN, ConfigError

CONVOLUTIONS = {8: (2, 2, 2), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
"""Convolutions per stage. 11, 13 and 16 are configurations A, B and D of Simonyan & Zisserman 2015."""

CHANNELS = (64, 128, 256, 512, 512)


@dataclass(frozen=True)
class VGG(ModelSpec):
    """Stages of 3x3 convolutions with a 2x2 max pooling between them, global average pooling, a linear classifier.

    The layers are conv1, conv2, ..., out. One linear layer replaces the original three, as usual for small images.
    Depth 8 has three stages, for images too small for the five stages of the others.

    width: a multiplier of the original 64 to 512 channels.
    dropout: fraction of the features dropped before the classifier.
    """

    depth: Literal[8, 11, 13, 16] = 8
    width: float = 0.25
    activation: ActivationName = "relu"
    dropout: float = field(default=0.0, metadata=PER_RUN)

    def check(self) -> None:
        self.require(64 * self.width >= 1 and self.width <= 16, "width", "a multiplier from 1/64 to 16")
        self.require(0 <= self.dropout < 1, "dropout", "a fraction in [0, 1)")

    def build(self, norm: NormSpec, shape: tuple[int, int, int], classes: int) -> nn.Module:
        smallest = 2 ** (len(CONVOLUTIONS[self.depth]) - 1)
        if min(shape[1:]) < smallest:
            raise ConfigError(
                f"model.depth={self.depth} is not allowed with images of {shape[1]}x{shape[2]}: VGG-{self.depth} "
                f"halves them {smallest.bit_length() - 1} times and needs at least {smallest}x{smallest}; "
                "choose model.depth=8, larger images, or model=mlp."
            )
        model, n_in, number = nn.Sequential(), shape[0], itertools.count(1)
        for stage, convolutions in enumerate(CONVOLUTIONS[self.depth]):
            if stage > 0:
                model.add_module(f"pool{stage}", nn.MaxPool2d(2))
            channels = max(1, round(CHANNELS[stage] * self.width))
            for _ in range(convolutions):
                model.add_module(f"conv{next(number)}", conv3x3(n_in, channels, norm, self.activation))
                n_in = channels
        model.add_module("mean", GlobalAveragePool())
        if self.dropout:
            model.add_module("dropout", Dropout(self.dropout))
        model.add_module("out", classifier(n_in, classes))
        return model
