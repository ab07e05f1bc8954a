"""Leaves the norms of a plain module as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from bnstudy.norms.base import Layout, NormSpec
from bnstudy.validation import ConfigError


@dataclass(frozen=True)
class KeepNorm(NormSpec):
    """The norms that a plain module has itself (`model=module`). No other network has any to keep."""

    def canonical(self) -> Mapping[str, object]:
        return {"position": "before"}

    def build(self, channels: int, layout: Layout) -> nn.Module:  # noqa: ARG002
        raise ConfigError(
            "norm=keep is allowed with model=module only, which has norms of its own; choose another norm, such as "
            "norm=batch."
        )
