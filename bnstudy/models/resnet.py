"""Residual networks of the CIFAR kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from bnstudy.models.layers import ActivationName, GlobalAveragePool, classifier, conv3x3
from bnstudy.spec import ConfigError, ModelSpec, NormSpec


@dataclass(frozen=True)
class ResNet(ModelSpec):
    """He et al. 2016, section 4.2: a 3x3 convolution, three stages of n basic blocks, 6n+2 weight layers in all.

    Shortcuts have no parameters (their option A): where the size halves they take every second pixel and pad the
    new channels with zeros.

    width: channels of the first stage; the others have two and four times as many.
    """

    depth: Literal[8, 20, 32, 56] = 8
    width: int = 16
    activation: ActivationName = "relu"

    def check(self) -> None:
        self.require(self.width >= 1, "width", "at least 1")

    def build(self, norm: NormSpec, shape: tuple[int, int, int], classes: int) -> nn.Module:
        if min(shape[1:]) < 4:
            raise ConfigError(
                f"model=resnet is not allowed with pictures of {shape[1]}x{shape[2]}: it halves them twice and needs "
                "at least 4x4; choose larger pictures or model=mlp."
            )
        return ResNetNet(self, norm, shape[0], classes)


class ResNetNet(nn.Sequential):
    """[B, C, H, W] -> [B, classes]; the layers are stem, stage1.block1.conv1, ..., out."""

    def __init__(self, spec: ResNet, norm: NormSpec, n_in: int, classes: int) -> None:
        super().__init__()
        self.add_module("stem", conv3x3(n_in, spec.width, norm, spec.activation))
        channels = spec.width
        for stage in (1, 2, 3):
            blocks = nn.Sequential()
            for i in range((spec.depth - 2) // 6):
                stride = 2 if stage > 1 and i == 0 else 1
                blocks.add_module(f"block{i + 1}", Block(channels, channels * stride, norm, spec.activation))
                channels *= stride
            self.add_module(f"stage{stage}", blocks)
        self.add_module("mean", GlobalAveragePool())
        self.add_module("out", classifier(channels, classes))


class Block(nn.Module):
    """Two 3x3 convolutions and the shortcut: act(norm(conv2(act(norm(conv1(x))))) + shortcut(x)).

    With `position=after` each norm stands behind its activation, the second behind the addition too.
    """

    def __init__(self, n_in: int, n_out: int, norm: NormSpec, activation: ActivationName) -> None:
        super().__init__()
        self.stride = n_out // n_in
        self.new_channels = n_out - n_in
        self.conv1 = conv3x3(n_in, n_out, norm, activation, self.stride)
        self.conv2 = conv3x3(n_out, n_out, norm, activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x), self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        if self.new_channels == 0:
            return x
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
