"""Which runs belong together, and what to call them by nothing but their differences.

A *factor* is a column of the spec that differs within the report. An *arm* is the runs that agree in every factor, so
that only their seeds differ; its *family* is the arms that differ in the learning rate alone; a *panel* is one model
on one dataset, beyond which nothing is ever pooled.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import pandas as pd

from bnstudy.spec import show

BASELINE = "NoNorm"
"""Class name of the norm that other norms are compared with."""

LABELS = ("panel", "norm_label", "rest", "family", "arm")
CLASSES = ("model", "data", "norm", "init", "optim", "schedule")
"""Columns whose values say by themselves what they are: `BatchNorm`, not `norm=BatchNorm`."""

FIRST = ("model", "data", "norm", "lr", "batch_size")
"""Factors wherever they differ; the others only where they tell apart runs that the factors before them do not."""


def label(specs: pd.DataFrame) -> pd.DataFrame:
    """`specs` (as from `load_specs`) with the columns of `LABELS`: ordered categories in their natural order, the
    baseline norm first.

    norm_label: the norm and what differs within its class. rest: every other factor but model, data and lr, so that
    `family` is the two joined.
    """
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
    """The columns that differ, but the seed, without those that the ones before them determine."""
    columns = [c for c in specs.columns if c not in ("run_id", "seed", *FIRST)]
    kept: dict[str, pd.Series] = {}
    for column in [*(c for c in FIRST if c in specs), *columns]:
        texts = piece(specs, column)
        if (texts != "").any() and (column in FIRST or _tells_apart(texts, kept)):
            kept[column] = texts
    return list(kept)


def piece(specs: pd.DataFrame, column: str) -> pd.Series:
    """What `column` adds to each run's label, "" where it does not differ.

    A field such as `norm.eps` is compared within its class only: no other class has the same.
    """
    texts = _texts(specs[column])
    parent, _, name = column.rpartition(".")
    root = parent.split(".")[0]
    owner = specs[root] if root and root in specs else pd.Series("", specs.index)
    differs = texts.groupby(owner, dropna=False).transform("nunique") > 1
    if column in CLASSES:
        return texts.where(differs, "")
    clash = sum(c.rpartition(".")[2] == name and specs[c].map(_hashable).nunique() > 1 for c in specs.columns) > 1
    return ((column if clash else name) + "=" + texts).where(differs, "")


def _texts(values: pd.Series) -> pd.Series:
    """As one types them on the command line; with every digit where fewer would make two values one."""
    shown = values.map(lambda v: show(None if _is_missing(v) else v))
    exact = values.map(lambda v: "null" if _is_missing(v) else str(v))
    return (shown if shown.nunique() == exact.nunique() else exact).astype(object)


def _tells_apart(texts: pd.Series, kept: dict[str, pd.Series]) -> bool:
    if not kept:
        return True
    return bool((texts.groupby(list(kept.values())).nunique() > 1).any())


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
    if _is_missing(value) or value == BASELINE:
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
