"""Claims: what is said of a normalization, in a form that runs can answer. Each is a file `claim/NAME.yaml`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml

from bnstudy.analysis.metrics import METRICS, Metric
from bnstudy.checked import ConfigError, Spec, nearest

View = Literal["same_rate", "best_rate", "all_rates"]


@dataclass(frozen=True)
class Claim(Spec):
    """A statement, and what decides on it.

    with_, without: the values of the spec that the two sides have, such as {norm: BatchNorm}; else they are alike.
    metric: one of `metrics.METRICS`. better: which of its values speak for the claim.
    scale, delta: how the two sides are compared, and the smallest effect of interest: a difference in the metric's
        unit, or a ratio above 1.
    unit: of the effect, which is positive (above 1) where it speaks for the claim.
    views: same_rate, both sides at the learning rate that is best for the one without; best_rate, each at its own
        best; all_rates, for metrics of the whole grid.
    tuning_seeds: so many first seeds choose the learning rates and are left out of the evaluation.
    target_share: of the validation accuracy that the side without ends with at its best learning rate (mean over the
        tuning seeds): the target of metrics that have one.
    """

    group: ClassVar[str] = "claim"
    name: str
    statement: str
    source: str
    metric: str
    better: Literal["higher", "lower"]
    scale: Literal["difference", "log_ratio"]
    delta: float
    unit: str
    views: tuple[View, ...]
    with_: dict[str, Any]
    without: dict[str, Any]
    tuning_seeds: int
    min_seeds: int = 10
    target_share: float | None = None

    def check(self) -> None:
        self.require(self.metric in METRICS, "metric", f"one of {', '.join(METRICS)}")
        read = self.reading
        self.require(self.scale in read.scales, "scale", f"{' or '.join(read.scales)} for {self.metric}")
        ratio = self.scale == "log_ratio"
        self.require(self.delta > (1 if ratio else 0), "delta", "above 1, a ratio" if ratio else "above 0")
        self.require(self.min_seeds >= 2, "min_seeds", "at least 2")
        views = ("all_rates",) if read.of_family else ("same_rate", "best_rate")
        fits = bool(self.views) and {*self.views} <= {*views}
        self.require(fits, "views", f"a list of {' and '.join(views)} for {self.metric}")
        least = 0 if read.of_family else 1
        self.require(self.tuning_seeds >= least, "tuning_seeds", f"at least {least} for {self.metric}")
        self._check_target()
        for name in ("with_", "without"):
            self.require(bool(getattr(self, name)), name, "a mapping such as {norm: BatchNorm}")

    def _check_target(self) -> None:
        share = self.target_share
        if not self.reading.targeted:
            self.require(share is None, "target_share", f"left out, as {self.metric} has no target")
        else:
            self.require(share is not None and 0 < share <= 1, "target_share", f"a share in (0, 1] for {self.metric}")

    def key(self, name: str) -> str:
        return super().key(name.rstrip("_"))  # `with` is a word of Python's

    @property
    def reading(self) -> Metric:
        return METRICS[self.metric]

    @property
    def threshold(self) -> float:
        """delta on the scale of the differences."""
        return math.log(self.delta) if self.scale == "log_ratio" else self.delta

    def in_unit(self, difference: float) -> float:
        """A difference, positive where it speaks for the claim, in the claim's unit."""
        return math.exp(difference) if self.scale == "log_ratio" else difference


def load_claims(names: Sequence[str], folders: Sequence[Path]) -> list[Claim]:
    """The claims with these names, each from the first of the folders that has it.

    Raises:
        ConfigError: there is no such claim, or its file is not one.
    """
    return [_load(str(name), folders) for name in names]


def _load(name: str, folders: Sequence[Path]) -> Claim:
    known = {path.stem: path for folder in reversed(folders) for path in sorted(folder.glob("*.yaml"))}
    if name not in known:
        places = " and ".join(map(str, folders))
        raise ConfigError(
            f"The study bears on the claim {name}, of which there is no {name}.yaml in {places}"
            f"{nearest(name, known) or '.'} To say where claims of your own are: bnstudy-report claims=my_conf/claim"
        )
    try:
        return claim_of(yaml.safe_load(known[name].read_text(encoding="utf-8")), name)
    except (ConfigError, yaml.YAMLError) as error:
        raise ConfigError(f"In {known[name]}: {error}") from error


def claim_of(node: Any, name: str) -> Claim:
    """A claim from what its file holds.

    Raises:
        ConfigError: a key is unknown or missing, or a value is not allowed.
    """
    if not isinstance(node, Mapping):
        raise ConfigError("a claim is a mapping of keys to values.")
    required = {f.name.rstrip("_"): f.default is MISSING for f in fields(Claim) if f.name != "name"}
    for key in node:
        if key not in required:
            hint = nearest(key, required) or "."
            raise ConfigError(f"claim.{key} is not a known key{hint} Known: {', '.join(required)}.")
    for key, is_required in required.items():
        if is_required and key not in node:
            raise ConfigError(f"claim.{key} is missing.")
    values = {"with_" if key == "with" else str(key): value for key, value in node.items()}
    return Claim(name=name, **values)
