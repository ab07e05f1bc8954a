"""Claims: what is said of a normalization, in a form that runs can answer. Each is a file `claim/NAME.yaml`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml

from bnstudy.claims.metrics import METRICS, Metric
from bnstudy.validation import ConfigError, Spec, nearest

View = Literal["same_rate", "best_rate", "all_rates", "before_training"]


@dataclass(frozen=True)
class Claim(Spec):
    """A statement, and what decides on it.

    study: the one that feeds it.
    with_, without: the values of the spec that the two sides have, such as {norm: BatchNorm}; else they are alike. A
        list stands for any of its values, each a case of its own. Instead of `without` a `reference` may be given, a
        value of the metric that the side with it is compared to.
    metric: one of `metrics.METRICS`. better: which of its values speak for the claim; with `either` the claim is that
        there is a difference, and its sign is that of with minus without.
    scale, delta: how the two sides are compared, and the smallest effect of interest: a difference in the metric's
        unit, or a ratio above 1. One number, or one by dataset, with a `default`.
    unit: of the effect, which is positive (above 1) where it speaks for the claim.
    views: same_rate, both sides at the learning rate that is best for the one without; best_rate, each at its own
        best; all_rates, for metrics of the whole grid; before_training, for metrics of the network as it begins. The
        first is the one that the claim is told by.
    across: {column: value}: the effect is that at another value of the column less that at this one, the interaction
        of a 2x2 design.
    over: columns whose values are no cases of their own: the metric is one of all of them together.
    tuning_seeds: so many first seeds choose the learning rates and are left out of the evaluation.
    target_share: of the validation accuracy that the side without ends with at its best learning rate (mean over the
        tuning seeds): the target of metrics that have one.
    caveats: what the reader is to keep in mind. figures: kinds of the report's figures that show it.
    order: where it stands in a report, small numbers first.
    """

    group: ClassVar[str] = "claim"
    name: str
    statement: str
    source: str
    study: str
    metric: str
    better: Literal["higher", "lower", "either"]
    scale: Literal["difference", "log_ratio"]
    delta: float | dict[str, Any]
    unit: str
    views: tuple[View, ...]
    with_: dict[str, Any]
    tuning_seeds: int
    without: dict[str, Any] | None = None
    reference: float | None = None
    across: dict[str, Any] = field(default_factory=dict)
    over: tuple[str, ...] = ()
    min_seeds: int = 10
    target_share: float | None = None
    caveats: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    order: int = 1000

    def check(self) -> None:
        self.require(self.metric in METRICS, "metric", f"one of {', '.join(METRICS)}")
        read = self.reading
        self.require(self.scale in read.scales, "scale", f"{' or '.join(read.scales)} for {self.metric}")
        self._check_delta()
        self.require(self.min_seeds >= 2, "min_seeds", "at least 2")
        views = {"of_family": ("all_rates",), "untrained": ("before_training",)}.get(
            read.kind, ("same_rate", "best_rate")
        )
        fits = bool(self.views) and {*self.views} <= {*views}
        self.require(fits, "views", f"a list of {' and '.join(views)} for {self.metric}")
        least = 1 if read.kind in ("of_arm", "of_several") else 0
        self.require(self.tuning_seeds >= least, "tuning_seeds", f"at least {least} for {self.metric}")
        self._check_target()
        self._check_sides()
        self._check_groups()

    def _check_delta(self) -> None:
        ratio, by_data = self.scale == "log_ratio", self.delta if isinstance(self.delta, dict) else {"": self.delta}
        numbers = all(isinstance(d, int | float) and d > (1 if ratio else 0) for d in by_data.values())
        self.require(numbers, "delta", "above 1, a ratio" if ratio else "above 0")
        fits = not isinstance(self.delta, dict) or "default" in self.delta
        self.require(fits, "delta", "a number, or one by dataset with a default")

    def _check_target(self) -> None:
        share = self.target_share
        if self.reading.target != "accuracy":
            reason = "has no target" if self.reading.target is None else "finds its target itself"
            self.require(share is None, "target_share", f"left out, as {self.metric} {reason}")
        else:
            self.require(share is not None and 0 < share <= 1, "target_share", f"a share in (0, 1] for {self.metric}")

    def _check_sides(self) -> None:
        self.require(bool(self.with_), "with_", "a mapping such as {norm: BatchNorm}")
        if self.reference is None:
            self.require(bool(self.without), "without", "a mapping such as {norm: NoNorm}, unless there is a reference")
            return
        self.require(self.without is None, "without", "left out where there is a reference")
        self.require(not self.across, "across", "left out where there is a reference")
        self.require(self.scale == "difference", "scale", "difference where there is a reference")
        fits = self.reading.target is None
        self.require(fits, "reference", f"left out for {self.metric}, whose target is that of the side without")
        self.require("same_rate" not in self.views, "views", "without same_rate where there is a reference")

    def _check_groups(self) -> None:
        self.require(len(self.across) <= 1, "across", "a mapping of one column to a value, such as {model.dropout: 0}")
        several = self.reading.kind == "of_several"
        wanted = "a list of columns such as [init.std]" if several else "left out"
        self.require(bool(self.over) == several, "over", f"{wanted} for {self.metric}")
        fits = not several or {*self.views} == {"best_rate"}
        self.require(fits, "views", f"[best_rate] for {self.metric}")

    def key(self, name: str) -> str:
        return super().key(name.rstrip("_"))  # `with` is a word of Python's

    @property
    def reading(self) -> Metric:
        return METRICS[self.metric]

    def delta_for(self, data: str) -> float:
        """The smallest effect of interest on this dataset, in the claim's unit."""
        if isinstance(self.delta, dict):
            return float(self.delta[data if data in self.delta else "default"])
        return self.delta

    def threshold(self, data: str) -> float:
        """The same on the scale of the differences."""
        delta = self.delta_for(data)
        return math.log(delta) if self.scale == "log_ratio" else delta

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
    required = {
        f.name.rstrip("_"): f.default is MISSING and f.default_factory is MISSING
        for f in fields(Claim)
        if f.name != "name"
    }
    for key in node:
        if key not in required:
            hint = nearest(key, required) or "."
            raise ConfigError(f"claim.{key} is not a known key{hint} Known: {', '.join(required)}.")
    for key, is_required in required.items():
        if is_required and key not in node:
            raise ConfigError(f"claim.{key} is missing.")
    values = {"with_" if key == "with" else str(key): value for key, value in node.items()}
    return Claim(name=name, **values)
