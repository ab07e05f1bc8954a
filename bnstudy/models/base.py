"""The base class of all models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from bnstudy.norms.base import NormSpec
from bnstudy.validation import Spec


@dataclass(frozen=True)
class ModelSpec(Spec):
    """A network for images: an ordinary `nn.Module` from [B, C, H, W] to logits [B, classes]."""

    group: ClassVar[str] = "model"
    reads_lengths: ClassVar[bool] = False
    """Whether the network reads images as sequences that may end early, as with `data.length`."""

    def build(self, norm: NormSpec, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """The network for images of `shape` (C, H, W).

        Raises:
            ConfigError: the shape or the norm does not fit the network.
        """
        raise NotImplementedError
