"""Multilayer perceptrons."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from bnstudy.models.base import ModelSpec
from bnstudy.models.layers import ActivationName, Dropout, classifier, dense
from bnstudy.norms.base import NormSpec
from bnstudy.validation import ADDED, PER_RUN

DEPTH, WIDTH = 3, 128


@dataclass(frozen=True)
class MLP(ModelSpec):
    """`depth` hidden layers of `width` units (hidden1, hidden2, ...), then a linear classifier (out).

    depth: number of hidden layers.
    width: units of each hidden layer.
    activation: of the hidden layers.
    dropout: fraction of the units dropped behind each hidden layer with its norm and activation.
    widths: the units of each hidden layer, instead of depth and width. These two then become the number of layers and
        the units of the widest; equal widths become null, as the two say the same.
    """

    depth: int = DEPTH
    width: int = WIDTH
    activation: ActivationName = "relu"
    dropout: float = field(default=0.0, metadata=PER_RUN)
    widths: tuple[int, ...] | None = field(default=None, metadata=ADDED)

    def canonical(self) -> Mapping[str, object]:
        if self.widths is None:
            return {}
        depth, width = len(self.widths), max(self.widths, default=WIDTH)
        if self.depth not in (DEPTH, depth) or self.width not in (WIDTH, width):
            return {}  # `check` refuses it
        return {"depth": depth, "width": width, "widths": self.widths if len({*self.widths}) > 1 else None}

    def check(self) -> None:
        if self.widths is not None:
            allowed = f"null with model.depth={self.depth} and model.width={self.width}; give one or the other"
            given = (self.depth, self.width) == (len(self.widths), max(self.widths, default=WIDTH))
            self.require(given, "widths", allowed)
            self.require(min(self.widths, default=1) >= 1, "widths", "a list of widths of at least 1")
        self.require(self.depth >= 0, "depth", "0 or more hidden layers")
        self.require(self.width >= 1, "width", "at least 1")
        self.require(0 <= self.dropout < 1, "dropout", "a fraction in [0, 1)")

    def build(self, norm: NormSpec, shape: tuple[int, int, int], classes: int) -> nn.Module:
        n_in = math.prod(shape)
        model = nn.Sequential()
        model.add_module("flatten", nn.Flatten())
        for i, width in enumerate(self.widths or [self.width] * self.depth, 1):
            model.add_module(f"hidden{i}", dense(n_in, width, norm, self.activation))
            if self.dropout:
                model.add_module(f"dropout{i}", Dropout(self.dropout))
            n_in = width
        model.add_module("out", classifier(n_in, classes))
        return model
