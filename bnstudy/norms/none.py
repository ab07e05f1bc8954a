"""No normalization: the baseline."""

from __future__ import annotations

from dataclasses import dataclass

from bnstudy.norms.base import NoActivationNorm


@dataclass(frozen=True)
class NoNorm(NoActivationNorm):
    """No normalization: the baseline."""
