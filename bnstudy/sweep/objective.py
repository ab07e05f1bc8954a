"""What a sweeper that optimizes is told of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bnstudy.validation import ConfigError, show


def objective(summary: Mapping[str, Any], key: str) -> float:
    """The number of a run's summary with the dotted name `key`; never NaN, which optimizers refuse.

    A diverged run counts as guessing: its accuracies as one in the number of classes, all else as infinity, however
    good or short it was until then. So does a number that was never measured, or was not finite. Where there are no
    classes every accuracy is 0.
    """
    part, name = key.split(".")
    value = summary[part][name]
    if summary["status"] != "diverged" and value is not None:
        return float(value)
    return chance(summary) if is_accuracy(key) else math.inf


def chance(summary: Mapping[str, Any]) -> float:
    """The accuracy of guessing; 0 for a regression."""
    classes = summary["dataset"]["classes"]
    return 1 / classes if classes else 0.0


def is_accuracy(key: str) -> bool:
    return key.endswith("accuracy")


DIRECTIONS = {
    "direction": {"minimize": "minimize", "maximize": "maximize"},  # Optuna
    "ax_config.experiment.minimize": {"minimize": "true", "maximize": "false"},  # Ax
    "optim.maximize": {"minimize": "false", "maximize": "true"},  # Nevergrad
}
"""Where in `hydra.sweeper` the sweepers that optimize say in which direction. By default they all minimize."""


def check_direction(sweeper: DictConfig, key: str) -> None:
    """Raises ConfigError where the sweeper would look for the worst run, or for more than one objective."""
    way, other = ("maximize", "final.val_loss") if is_accuracy(key) else ("minimize", "final.val_accuracy")
    for name, values in DIRECTIONS.items():
        value = OmegaConf.select(sweeper, name)
        given = getattr(value, "name", show(value))
        if value is not None and given != values[way]:
            raise ConfigError(
                f"hydra.sweeper.{name}={given} is not allowed with objective={key}: it must be {values[way]}; or "
                f"choose another objective, such as {other}."
            )
