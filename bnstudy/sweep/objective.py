"""The number of a run that an optimizing sweeper, such as Optuna's, receives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def objective(summary: Mapping[str, Any], key: str) -> float:
    """The number of a run's summary with the dotted name `key`; never NaN, which optimizers refuse.

    For a diverged run, and for a number that was not measured or is not finite, an accuracy is that of guessing and any
    other number infinite.
    """
    part, name = key.split(".")
    value = summary[part][name]
    if summary["status"] != "diverged" and value is not None:
        return float(value)
    return chance_accuracy(summary) if key.endswith("accuracy") else math.inf


def chance_accuracy(summary: Mapping[str, Any]) -> float:
    """The accuracy of guessing; 0 for a regression."""
    classes = summary["dataset"]["classes"]
    return 1 / classes if classes else 0.0
