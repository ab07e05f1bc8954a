"""Residual networks for small images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from bnstudy.models.base import ModelSpec
from bnstudy.models.layers import ActivationName, Addition, Dropout, GlobalAveragePool, classifier, conv3x3
from bnstudy.norms.base import NormSpec
from bnstudy.validation import PER_RUN, ConfigError

BlockOrder = Literal["original", "preactivation", "after_addition"]


@dataclass(frozen=True)
class ResNet(ModelSpec):
    """He et al. 2016, section 4.2: a 3x3 convolution, three stages of n basic blocks, 6n+2 weight layers in all.

    Shortcuts have no parameters (option A of the paper): where the size halves they take every second pixel and fill
    the new channels with zeros.

    depth: number of weight layers.
    width: channels of the first stage; the others have two and four times as many.
    activation: of the hidden layers.
    block: the order of the layers in a block, one of those that He et al. 2016b compare: see `Block`.
    dropout: fraction of the features dropped before the classifier.
    """

    depth: Literal[8, 20, 32, 56] = 8
    width: int = 16
    activation: ActivationName = "relu"
    block: BlockOrder = "original"
    dropout: float = field(default=0.0, metadata=PER_RUN)

    def check(self) -> None:
        self.require(self.width >= 1, "width", "at least 1")
        self.require(0 <= self.dropout < 1, "dropout", "a fraction in [0, 1)")

    def build(self, norm: NormSpec, shape: tuple[int, int, int], classes: int) -> nn.Module:
        if min(shape[1:]) < 4:
            raise ConfigError(
                f"model=resnet is not allowed with images of {shape[1]}x{shape[2]}: it halves them twice and needs "
                "at least 4x4; choose larger images or model=mlp."
            )
        if norm.position == "after" and self.block != "original":
            raise ConfigError(
                f"norm.position=after is not allowed with model.block={self.block}, which places the norms itself; "
                "it must be before, or choose model.block=original."
            )
        return ResNetNet(self, norm, shape[0], classes)


class ResNetNet(nn.Module):
    """[B, C, H, W] -> [B, classes]; the layers are stem, stage1.block1.conv1, ..., out."""

    def __init__(self, spec: ResNet, norm: NormSpec, n_in: int, classes: int) -> None:
        super().__init__()
        self.stem = conv3x3(n_in, spec.width, norm, spec.activation)
        self.stage1 = stage(spec, norm, spec.width, spec.width)
        self.stage2 = stage(spec, norm, spec.width, 2 * spec.width)
        self.stage3 = stage(spec, norm, 2 * spec.width, 4 * spec.width)
        self.mean = GlobalAveragePool()
        self.dropout = Dropout(spec.dropout) if spec.dropout else None
        self.out = classifier(4 * spec.width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = shortcut = self.stem(x)
        for block in (*self.stage1, *self.stage2, *self.stage3):
            x, shortcut = block(x, shortcut)
        x = self.mean(x)
        return self.out(x if self.dropout is None else self.dropout(x))


def stage(spec: ResNet, norm: NormSpec, n_in: int, n_out: int) -> nn.Sequential:
    """The blocks block1, block2, ... of `n_out` channels; the input of the first has `n_in`."""
    blocks = nn.Sequential()
    for i in range((spec.depth - 2) // 6):
        blocks.add_module(f"block{i + 1}", Block(spec, norm, n_out if i else n_in, n_out))
    return blocks


class Block(nn.Module):
    """Two 3x3 convolutions and the shortcut, in one of the orders of He et al. 2016b, Figure 4.

    original (a): act(norm(conv2(act(norm(conv1(x))))) + shortcut(x)).
    after_addition (b): act(norm(conv2(act(norm(conv1(x)))) + shortcut(x))).
    preactivation (e): s' = conv2(act(norm(conv1(act(norm(s)))))) + shortcut(s).

    The third is written as in their Figure 5: like the second, except that the shortcut passes on the sum s itself.
    So in all three a norm and an activation belong to the layer before them. As in their appendix, the first block
    gets act(norm(stem)) on both paths, and the network averages act(norm(s)) of the last block.

    With `position=after`, which only `original` allows, each norm follows its activation, and the block's second norm
    also follows the addition.
    """

    def __init__(self, spec: ResNet, norm: NormSpec, n_in: int, n_out: int) -> None:
        super().__init__()
        self.order = spec.block
        self.stride = n_out // n_in
        self.new_channels = n_out - n_in
        self.conv1 = conv3x3(n_in, n_out, norm, spec.activation, self.stride)
        adds: Addition = "behind_norm" if spec.block == "original" else "before_norm"
        self.conv2 = conv3x3(n_out, n_out, norm, spec.activation, adds=adds)

    def forward(self, x: Tensor, shortcut: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs of the next block's branch and shortcut, from those of this block's."""
        hidden, shortcut = self.conv1(x), self.shortcut(shortcut)
        if self.order == "original":
            out = self.conv2(hidden, shortcut)
            return out, out
        out, total = self.conv2.add_first(hidden, shortcut)
        return out, total if self.order == "preactivation" else out

    def shortcut(self, x: Tensor) -> Tensor:
        if self.new_channels == 0:
            return x
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
