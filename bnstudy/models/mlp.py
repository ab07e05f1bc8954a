"""Multilayer perceptrons."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor, nn

from bnstudy.models.base import ModelSpec
from bnstudy.models.layers import ActivationName, Dropout, classifier, dense
from bnstudy.norms.base import NormSpec
from bnstudy.validation import PER_RUN


@dataclass(frozen=True)
class MLP(ModelSpec):
    """`depth` hidden layers of `width` units, then a linear classifier.

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
        return MLPNet(self, norm, math.prod(shape), classes)


class MLPNet(nn.Sequential):
    """[B, C, H, W] -> [B, classes]; the layers are hidden1, hidden2, ..., out."""

    def __init__(self, spec: MLP, norm: NormSpec, n_in: int, classes: int) -> None:
        super().__init__()
        for i in range(spec.depth):
            self.add_module(f"hidden{i + 1}", dense(n_in if i == 0 else spec.width, spec.width, norm, spec.activation))
            if spec.dropout:
                self.add_module(f"dropout{i + 1}", Dropout(spec.dropout))
        self.add_module("out", classifier(spec.width if spec.depth else n_in, classes))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1))
