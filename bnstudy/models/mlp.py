"""Multilayer perceptrons."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import nn

from bnstudy.models.base import ModelSpec
from bnstudy.models.layers import ActivationName, Dropout, classifier, dense
from bnstudy.norms.base import NormSpec
from bnstudy.validation import PER_RUN


@dataclass(frozen=True)
class MLP(ModelSpec):
    """`depth` hidden layers of `width` units (hidden1, hidden2, ...), then a linear classifier (out).

    dropout: fraction of the units dropped behind each hidden layer with its norm and activation.
    """

    depth: int = 3
    width: int = 128
    activation: ActivationName = "relu"
    dropout: float = field(default=0.0, metadata=PER_RUN)

    def check(self) -> None:
        self.require(self.depth >= 0, "depth", "0 or more hidden layers")
        self.require(self.width >= 1, "width", "at least 1")
        self.require(0 <= self.dropout < 1, "dropout", "a fraction in [0, 1)")

    def build(self, norm: NormSpec, shape: tuple[int, int, int], classes: int) -> nn.Module:
        n_in = math.prod(shape)
        model = nn.Sequential()
        model.add_module("flatten", nn.Flatten())
        for i in range(1, self.depth + 1):
            model.add_module(f"hidden{i}", dense(n_in, self.width, norm, self.activation))
            if self.dropout:
                model.add_module(f"dropout{i}", Dropout(self.dropout))
            n_in = self.width
        model.add_module("out", classifier(n_in, classes))
        return model
