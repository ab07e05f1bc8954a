"""Claims: statements about a normalization that runs can decide. Each is a file `claim/NAME.yaml`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import yaml

from bnstudy.claims.arms import dataset_name
from bnstudy.claims.metrics import TARGET_SHARE, Metric, View, find_metric
from bnstudy.store.files import conf_dir
from bnstudy.store.renames import FORMER_CLAIMS
from bnstudy.validation import ConfigError, Spec, nearest

Status = Literal["SUPPORTED", "CONTRADICTED", "NEGLIGIBLE", "INCONCLUSIVE"]
STATUSES: tuple[Status, ...] = ("SUPPORTED", "CONTRADICTED", "NEGLIGIBLE", "INCONCLUSIVE")

RATIO = 1.25
"""Default of the smallest effect of interest on ratios."""

IGNORED = ("study", "tuning_seeds")
"""Keys that former files have: the study names its claims, and all other seeds choose the learning rate of a seed."""

LARGEST = 700.0
"""Of the logarithm of a ratio: beyond, the ratio is more than a number can hold."""


@dataclass(frozen=True)
class Claim(Spec):
    """A statement and the rule that decides on it.

    Args:
        with_, without: columns of the spec and the values that the two sides have, such as {norm: BatchNorm}. In all
            other columns the sides agree. A list gives a case to each of its values.
        reference: a value of the metric to compare the side `with_` with, in place of `without`.
        metric: the name of a metric, see `metrics.find_metric`.
        better: which of its values support the claim. With `either` the claim is that there is a difference, and its
            sign is that of with minus without.
        scale: how the two sides are compared; by default the metric's first scale.
        delta: the smallest effect of interest, a difference in the metric's unit or a ratio above 1: one number, or
            one per dataset and a `default`. By default 1.25 for ratios and the metric's own for differences.
        unit: of the effect, which is positive (above 1) where it supports the claim: the words after its number, such
            as `times fewer steps`. opposite: the words after that of an effect in the other direction, such as
            `times more steps`.
        quantity: what the effect is one on, such as `steps to the same accuracy`; by default the metric's name.
        title: the result as a title, with `{effect}` in it; by default the statement with the effect behind it.
        views: same_rate, both sides at the best learning rate of the side without; best_rate, each side at its own
            best; all_rates, for metrics of the whole grid; before_training, for metrics of the untrained network. The
            first is the primary view. By default all that the metric has, but for same_rate where there is
            `reference` or `across`. Where a case has a single learning rate, fixed_rate replaces same_rate and
            best_rate.
        across: {column: value}: the effect is that at another value of the column minus that at this one, the
            interaction of a 2x2 design.
        over: columns whose values make no cases of their own: the metric is one number of all of them.
        target_share: the target of metrics that have one, as a share of the validation accuracy that the side without
            ends with at its best learning rate (mean over the seeds).
        requires: {claim: statuses}: claims on the same families that must have one of these. Otherwise this one is
            inconclusive: the question does not arise.
        min_steps: the shortest training that can decide.
        caveats: what to keep in mind. figures: kinds of the report's figures that show the claim.
        order: its place in a report, ascending.
    """

    group: ClassVar[str] = "claim"
    name: str
    statement: str
    source: str
    metric: str
    better: Literal["higher", "lower", "either"]
    unit: str
    with_: dict[str, Any]
    scale: Literal["difference", "log_ratio"]
    delta: float | dict[str, Any]
    views: tuple[View, ...]
    opposite: str = ""
    quantity: str = ""
    title: str = ""
    without: dict[str, Any] | None = None
    reference: float | None = None
    across: dict[str, Any] = field(default_factory=dict)
    over: tuple[str, ...] = ()
    min_seeds: int = 10
    min_steps: int = 0
    requires: dict[str, Any] = field(default_factory=dict)
    target_share: float | None = None
    caveats: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    order: int = 1000

    def check(self) -> None:
        measure = self.measure
        self.require(self.scale in measure.scales, "scale", f"{' or '.join(measure.scales)} for {self.metric}")
        self._check_delta()
        self.require(self.min_seeds >= 2, "min_seeds", "at least 2")
        fits = bool(self.views) and {*self.views} <= {*measure.views}
        self.require(fits, "views", f"a list of {' and '.join(measure.views)} for {self.metric}")
        known = all(isinstance(allowed, list) and {*allowed} <= {*STATUSES} for allowed in self.requires.values())
        self.require(known, "requires", f"a mapping of claims to lists of {' or '.join(STATUSES)}")
        only_effect = not self.title or self.title.count("{effect}") == 1
        self.require(only_effect, "title", "a text with {effect} in it, once")
        self._check_target()
        self._check_sides()
        self.require(len(self.across) <= 1, "across", "a mapping of one column to a value, such as {model.dropout: 0}")
        several = measure.kind == "of_several"
        wanted = "a list of columns such as [init.std]" if several else "left out"
        self.require(bool(self.over) == several, "over", f"{wanted} for {self.metric}")

    def _check_delta(self) -> None:
        ratio, by_data = self.scale == "log_ratio", self.delta if isinstance(self.delta, dict) else {"": self.delta}
        numbers = all(isinstance(d, int | float) and d > (1 if ratio else 0) for d in by_data.values())
        self.require(numbers, "delta", "above 1, a ratio" if ratio else "above 0")
        fits = not isinstance(self.delta, dict) or "default" in self.delta
        self.require(fits, "delta", "a number, or one by dataset with a default")

    def _check_target(self) -> None:
        if self.target_share is None:
            return
        target = self.measure.target
        reason = "has no target" if target is None else "finds its target itself"
        self.require(target == "accuracy", "target_share", f"left out, as {self.metric} {reason}")
        self.require(0 < self.target_share <= 1, "target_share", f"a share in (0, 1] for {self.metric}")

    def _check_sides(self) -> None:
        self.require(bool(self.with_), "with_", "a mapping such as {norm: BatchNorm}")
        if self.reference is None:
            self.require(bool(self.without), "without", "a mapping such as {norm: NoNorm}, unless there is a reference")
            return
        self.require(self.without is None, "without", "left out where there is a reference")
        self.require(not self.across, "across", "left out where there is a reference")
        self.require(self.scale == "difference", "scale", "difference where there is a reference")
        fits = self.measure.target is None
        self.require(fits, "reference", f"left out for {self.metric}, whose target is that of the side without")
        self.require("same_rate" not in self.views, "views", "without same_rate where there is a reference")

    def key(self, name: str) -> str:
        return super().key(name.rstrip("_"))  # `with` is a word of Python's

    @property
    def metric_name(self) -> str:
        """`"steps to the target"`."""
        words = self.metric.rpartition(".")[2].replace("_", " ")
        return words.replace("update", "step").replace("to target", "to the target")

    @property
    def quantity_name(self) -> str:
        """`"steps to the same accuracy"`."""
        return self.quantity or self.metric_name

    @property
    def directions(self) -> tuple[str, str]:
        """What lies on either side of no difference: `("against the claim", "for the claim")`; of a claim that names no
        direction, the words by which `opposite` and `unit` differ, such as `("less", "more")`."""
        if self.better != "either":
            return "against the claim", "for the claim"
        left, right = self.opposite.split(), self.unit.split()
        differ = [words for words in zip(left, right, strict=False) if words[0] != words[1]]
        return differ[0] if len(left) == len(right) and len(differ) == 1 else ("less", "more")

    @property
    def measure(self) -> Metric:
        return find_metric(self.metric)

    @property
    def share_of_target(self) -> float:
        return TARGET_SHARE if self.target_share is None else self.target_share

    def delta_for(self, data: str) -> float:
        """The smallest effect of interest on this dataset, in the claim's unit."""
        if isinstance(self.delta, dict):
            name = dataset_name(data)
            return float(self.delta[name if name in self.delta else "default"])
        return self.delta

    def threshold(self, data: str) -> float:
        """The same on the scale of the differences."""
        delta = self.delta_for(data)
        return math.log(delta) if self.scale == "log_ratio" else delta

    def end(self, difference: float) -> float:
        """An end of an interval of differences; infinite for none, and where no number holds the ratio.

        It is at most where two values can be: an interval without impossible values has the same coverage.
        """
        if not math.isfinite(difference):
            return difference
        if self.scale == "log_ratio":
            return difference if abs(difference) < LARGEST else math.copysign(math.inf, difference)
        most = self.measure.most_apart * (2 if self.across else 1)
        return float(np.clip(difference, -most, most))

    def in_unit(self, difference: float) -> float:
        """A difference, positive where it supports the claim, in the claim's unit."""
        return math.exp(max(-LARGEST, min(difference, LARGEST))) if self.scale == "log_ratio" else difference


def load_claims(names: Sequence[str], folders: Sequence[Path] = ()) -> list[Claim]:
    """The claims with these names, each from the first that has it of the user's folders and conf/claim.

    Raises:
        ConfigError: there is no such claim, or its file is not a claim.
    """
    places = [*dict.fromkeys([*folders, conf_dir() / "claim"])]
    known = find_claims(places)
    claims = []
    for name in present_claims(names, folders):
        if name not in known:
            where = f"{' and '.join(map(str, places))}{nearest(name, known) or '.'}"
            raise ConfigError(
                f"The study's claim {name} is unknown: there is no {name}.yaml in {where} "
                "To add a folder of your own claims: bnstudy-report --config-dir my_conf"
            )
        try:
            claims.append(claim_of(yaml.safe_load(known[name].read_text(encoding="utf-8")), name))
        except (ConfigError, yaml.YAMLError) as error:
            raise ConfigError(f"In {known[name]}: {error}") from error
    return claims


def present_claims(names: Iterable[object], folders: Sequence[Path] = ()) -> list[str]:
    """The present names of claims, each once. A claim of the user's own keeps a former name of another."""
    own = find_claims(folders)
    return list(dict.fromkeys(name if name in own else FORMER_CLAIMS.get(name, name) for name in map(str, names)))


def describe_renamed(names: Iterable[object], folders: Sequence[Path] = ()) -> list[str]:
    """A sentence for each claim that a plan of an earlier version names and another one replaces."""
    own = find_claims(folders)
    former = [str(name) for name in names if name in FORMER_CLAIMS and name not in own]
    return [
        f"The claim {name} of an earlier version is judged by the rule of its successor {FORMER_CLAIMS[name]}."
        for name in former
    ]


def find_claims(folders: Sequence[Path]) -> dict[str, Path]:
    """The files of claims by name, each in the first folder that has it."""
    return {path.stem: path for folder in reversed(folders) for path in sorted(folder.glob("*.yaml"))}


def claim_of(node: Any, name: str) -> Claim:
    """A claim from the content of its file; the metric gives the defaults of scale, delta and views.

    Raises:
        ConfigError: a key is unknown or missing, or a value is not allowed.
    """
    if not isinstance(node, Mapping):
        raise ConfigError("a claim is a mapping of keys to values.")
    known = [f.name.rstrip("_") for f in fields(Claim) if f.name != "name"]
    for key in node:
        if key not in (*known, *IGNORED):
            raise ConfigError(f"claim.{key} is not a known key{nearest(key, known) or '.'} Known: {', '.join(known)}.")
    values = {"with_" if key == "with" else str(key): value for key, value in node.items() if key not in IGNORED}
    if "metric" in values:
        values = {**_defaults(find_metric(str(values["metric"])), values), **values}
    for f in fields(Claim):
        if f.default is MISSING and f.default_factory is MISSING and f.name not in (*values, "name"):
            raise ConfigError(f"claim.{f.name.rstrip('_')} is missing.")
    return Claim(name=name, **values)


def _defaults(measure: Metric, values: Mapping[str, Any]) -> dict[str, Any]:
    scale = values.get("scale", measure.scales[0])
    delta = RATIO if scale == "log_ratio" else measure.delta
    best_only = values.get("reference") is not None or values.get("across")
    return {
        "scale": scale,
        "views": [view for view in measure.views if not (best_only and view == "same_rate")],
        **({} if delta is None else {"delta": delta}),
    }
