"""Which runs belong together, and what to call them by nothing but their differences.

A *factor* is a column of the spec that differs within the report; what is recorded of a run is none. An *arm* is the
runs that agree in every factor, so that only their seeds differ; its *family* is the arms that differ in the learning
rate alone; a *panel* is one model on one dataset, beyond which nothing is ever pooled.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bnstudy.validation import show

BASELINES = ("NoNorm", "bnstudy.norms.none.NoNorm")
"""What the `norm` that other norms are compared with is called: the long name where another class has the short one."""

LABELS = ("panel", "norm_label", "rest", "family", "arm")
CLASSES = ("model", "data", "norm", "init", "optim", "schedule")
"""Columns whose values say by themselves what they are: `BatchNorm`, not `norm=BatchNorm`."""

FIRST = ("model", "data", "norm", "lr", "batch_size")
"""Factors wherever they differ; the others only where they differ within a model and dataset."""

RECORDED = ("probe", "evaluation")
"""What is measured of a run: it changes nothing in the training."""


def label(specs: pd.DataFrame) -> pd.DataFrame:
    """`specs` (as from `load_specs`) with the columns of `LABELS`: ordered categories in their natural order, the
    baseline norm first.

    norm_label: the norm and what differs within its class. rest: every other factor but model, data and lr, so that
    `family` is the two joined. Where classes share a name, the columns of `CLASSES` get their full dotted ones.
    """
    one, nth = distinct(specs)
    named = _labelled(one)
    taken = named[[c for c in (*CLASSES, *LABELS) if c in named]].iloc[nth].set_axis(specs.index)
    return specs.assign(**{c: taken[c] for c in taken})


def distinct(specs: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """The first of the rows that differ in nothing but the seed, and for each row the number of the one it is like.

    What is told of arms depends on no more than these.
    """
    told = any(c.endswith(".seed") for c in specs)  # a field by that name is told apart from the seed where both differ
    alike = np.zeros(len(specs), np.int64)
    for column in specs.columns.difference(["run_id"] if told else ["run_id", "seed"], sort=False):
        values = specs[column] if specs[column].dtype.kind in "biuf" else specs[column].map(repr)
        codes, found = pd.factorize(values, use_na_sentinel=False)
        alike = pd.factorize(alike * len(found) + codes)[0]
    return specs[~pd.Series(alike).duplicated().to_numpy()], alike


def _labelled(specs: pd.DataFrame) -> pd.DataFrame:
    specs = _spelled_out(specs)
    parts = {c: piece(specs, c) for c in factors(specs)}
    is_norm = [c for c in parts if c.split(".")[0] == "norm"]
    is_rest = [c for c in parts if c not in ("model", "data", "lr") and c not in is_norm]
    norm_label, rest = _joined(specs, parts, is_norm), _joined(specs, parts, is_rest)
    family = _joined(specs, parts, [*is_norm, *is_rest])
    arm = _joined(specs, parts, [*(c for c in ("model", "data") if c in parts), *is_norm, *is_rest, "lr"])
    alone = specs["norm"] if "norm" in specs else pd.Series("", specs.index)
    texts = {
        "panel": specs["model"] + " on " + specs["data"] if len(specs) else pd.Series(dtype=str),
        "norm_label": norm_label,
        "rest": rest,
        "family": family.where(family != "", alone),
        "arm": arm.where(arm != "", alone),
    }
    order = _natural_order(specs, ["data", "model", "norm", *is_norm, *is_rest, "lr"])
    return specs.assign(**{k: _ordered(v, order) for k, v in texts.items()})


def factors(specs: pd.DataFrame) -> list[str]:
    """The columns that differ, but the seed, without those that the model and the dataset determine.

    A column that another one determines stays: without it, arms that differ in both would pass for otherwise alike.
    """
    unlabelled = {"run_id", "seed", *(f"{c}._target_" for c in CLASSES)}
    columns = [c for c in specs.columns if c not in (*unlabelled, *FIRST) and not is_recorded(c)]
    first = [c for c in FIRST if c in specs and (piece(specs, c) != "").any()]
    return [*first, *(c for c in columns if _differs(specs, c, ["model", "data", *_owners(specs, c)]).any())]


def is_recorded(column: str) -> bool:
    """Whether the column says what is measured of a run, not what the run is."""
    return column.split(".")[0] in RECORDED


def piece(specs: pd.DataFrame, column: str) -> pd.Series:
    """What `column` adds to each run's label, "" where it does not differ.

    A field such as `norm.eps` is compared within its class only: no other class has the same.
    """
    texts, name = _texts(specs[column]), column.rpartition(".")[2]
    differs = _differs(specs, column, _owners(specs, column))
    if column in CLASSES:
        return texts.where(differs, "")
    clash = sum(c.rpartition(".")[2] == name and specs[c].map(_hashable).nunique() > 1 for c in specs.columns) > 1
    return ((column if clash else name) + "=" + texts).where(differs, "")


def _texts(values: pd.Series) -> pd.Series:
    """As one types them on the command line; with every digit where fewer would make two values one."""
    shown = values.map(lambda v: show(None if _is_missing(v) else v))
    exact = values.map(lambda v: "null" if _is_missing(v) else str(v))
    return (shown if shown.nunique() == exact.nunique() else exact).astype(object)


def _spelled_out(specs: pd.DataFrame) -> pd.DataFrame:
    """Full dotted names in the columns of `CLASSES` where one name stands for several classes."""
    full = {}
    for column in CLASSES:
        target = f"{column}._target_"
        if target in specs:
            shared = specs.groupby(column)[target].transform("nunique") > 1
            full[column] = specs[column].mask(shared, specs[target])
    return specs.assign(**full)


def _owners(specs: pd.DataFrame, column: str) -> list[str]:
    """The columns that say of which class `column` is a field, the outermost first."""
    parts = column.split(".")
    parents = [".".join(parts[:i]) for i in range(1, len(parts))]
    return [c for p in parents for c in (p, f"{p}._target_") if c in specs and c != column]


def _differs(specs: pd.DataFrame, column: str, within: Sequence[str]) -> pd.Series:
    """For each run, whether `column` differs among those that agree with it in the columns `within`."""
    texts = _texts(specs[column])
    if texts.nunique() < 2:
        return pd.Series(False, specs.index)
    alike = specs.groupby(list(within), dropna=False).ngroup() if within else pd.Series(0, specs.index)
    return texts.groupby(alike).transform("nunique") > 1


def _joined(specs: pd.DataFrame, parts: dict[str, pd.Series], columns: Sequence[str]) -> pd.Series:
    """The non-empty pieces of each run, joined by commas."""
    pieces = [parts[c] for c in columns if c in parts]
    if not pieces:
        return pd.Series("", specs.index, dtype=object)
    rows = zip(*pieces, strict=True)
    return pd.Series([", ".join(p for p in row if p) for row in rows], specs.index, dtype=object)


def _natural_order(specs: pd.DataFrame, columns: Sequence[str]) -> list[int]:
    """Positions of the runs sorted by the columns: numbers by size, texts by letters, the baseline norm first."""
    values = [specs[c].tolist() for c in columns if c in specs]
    keys = [tuple(_rank(v) for v in row) for row in zip(*values, strict=True)]
    return sorted(range(len(keys)), key=keys.__getitem__)


def _rank(value: Any) -> tuple[int, float, str]:
    if _is_missing(value) or value in BASELINES:
        return 0, 0.0, ""
    if isinstance(value, int | float):
        return 1, float(value), ""
    return 2, 0.0, str(value)


def _ordered(texts: pd.Series, order: list[int]) -> pd.Categorical:
    return pd.Categorical(texts, categories=pd.unique(texts.iloc[order]), ordered=True)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _hashable(value: Any) -> Hashable:
    return "null" if _is_missing(value) else str(value)
