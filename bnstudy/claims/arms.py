"""Arms: which runs belong together, named by their differences alone.

A *factor* is a column of the spec that differs within the report, apart from measurements. An *arm* is the runs that
agree in every factor, so that only their seeds differ. Its *family* is the arms that differ in the learning rate alone.
A *panel* is one model on one dataset; nothing is pooled over panels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bnstudy.store.checksums import shorten
from bnstudy.validation import show

BASELINES = ("NoNorm", "bnstudy.norms.none.NoNorm")
"""Names of the `norm` without normalization; the long one is used where another class has the short one."""

LABELS = ("panel", "norm_label", "rest", "family", "arm")
CLASSES = ("model", "data", "norm", "init", "optim", "schedule")
"""Columns whose values are labels by themselves: `BatchNorm`, not `norm=BatchNorm`."""

FIRST = ("model", "data", "norm", "lr", "batch_size")
"""Columns that are factors wherever they differ; the others only where they differ within a model and dataset."""

RECORDED = ("probe", "evaluation")
"""Parts of the spec that are about measurements, and do not change the training."""

EVALUATION_BATCH = "evaluation.batch_size"
"""The column among them that changes results, where a norm evaluates with the statistics of a batch."""

NULL_WORDS = {
    "data.train_size": "all",
    "data.test_size": "all",
    "norm.momentum": "cumulative",
    EVALUATION_BATCH: "as in training",
}
"""What null means in a name, by column; none for the others."""

BALANCED = "class-balanced parts of 256"
"""The batches of an evaluation with such a norm in earlier versions."""


def label(specs: pd.DataFrame) -> pd.DataFrame:
    """`specs` (as from `load_specs`) with the columns of `LABELS`: ordered categories in their natural order, the
    baseline norm first.

    norm_label: the norm and what differs within its class. rest: every other factor but model, data and lr, so that
    `family` is the two joined. Where classes share a name, the columns of `CLASSES` get their full dotted ones.
    """
    specs = _with_scales(_with_evaluation_batches(specs))
    one, nth = distinct(specs)
    named = _add_labels(one)
    labels = named[[c for c in (*CLASSES, *LABELS) if c in named]].iloc[nth].set_axis(specs.index)
    return specs.assign(**dict(labels.items()))


VERSION = " (images "
"""In the name of a dataset, before the start of its checksum."""


def add_checksums(specs: pd.DataFrame, checksums: Mapping[str, str]) -> pd.DataFrame:
    """`specs` with the start of the checksum in the dataset's name of some runs: `Shapes (images 1a2b3c)`.

    Args:
        checksums: by run_id.
    """
    specs = _with_dotted_names(specs)  # names that get a checksum no longer show that two classes share one
    versions = specs["run_id"].map(checksums)
    named = specs["data"] + VERSION + versions.map(shorten, na_action="ignore") + ")"
    return specs.assign(data=specs["data"].where(versions.isna(), named))


def dataset_name(label: str) -> str:
    """The name of a dataset without a checksum."""
    return label.partition(VERSION)[0]


def _with_evaluation_batches(specs: pd.DataFrame) -> pd.DataFrame:
    """`specs` with missing in place of the default batch size of an evaluation, and BALANCED for earlier versions."""
    if EVALUATION_BATCH not in specs:
        return specs
    size = specs[EVALUATION_BATCH].astype(object)
    return specs.assign(
        **{EVALUATION_BATCH: size.mask(size == specs["batch_size"], None).mask(in_balanced_parts(specs), BALANCED)}
    )


def _with_scales(specs: pd.DataFrame) -> pd.DataFrame:
    """`specs` with the name of the usual scale of pixels, which a run's identity leaves out."""
    return specs.fillna({"data.scale": "standardized"}) if "data.scale" in specs else specs


def in_balanced_parts(specs: pd.DataFrame) -> pd.Series:
    """Which runs an earlier version evaluated with the statistics of class-balanced parts."""
    tracks = specs.get("norm.track_running_stats", pd.Series(None, specs.index))
    return (tracks == False) & specs.get(EVALUATION_BATCH, pd.Series(None, specs.index)).isna()  # noqa: E712


def distinct(specs: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """The distinct rows apart from the seed, and for each row the number of its distinct one."""
    has_seed_field = any(c.endswith(".seed") for c in specs)  # whose label depends on whether `seed` differs, too
    groups = np.zeros(len(specs), np.int64)
    for column in specs.columns.difference(["run_id"] if has_seed_field else ["run_id", "seed"], sort=False):
        values = specs[column] if specs[column].dtype.kind in "biuf" else specs[column].map(repr)
        codes, found = pd.factorize(values, use_na_sentinel=False)
        groups = pd.factorize(groups * len(found) + codes)[0]
    return specs[~pd.Series(groups).duplicated().to_numpy()], groups


def _add_labels(specs: pd.DataFrame) -> pd.DataFrame:
    specs = _with_dotted_names(specs)
    parts = {c: piece(specs, c) for c in factors(specs)}
    is_norm = [c for c in parts if c.split(".")[0] == "norm"]
    is_rest = [c for c in parts if c not in ("model", "data", "lr") and c not in is_norm]
    norm_label, rest = join_pieces(specs, parts, is_norm), join_pieces(specs, parts, is_rest)
    family = join_pieces(specs, parts, [*is_norm, *is_rest])
    arm = join_pieces(specs, parts, [*(c for c in ("model", "data") if c in parts), *is_norm, *is_rest, "lr"])
    alone = specs["norm"] if "norm" in specs else pd.Series("", specs.index)
    texts = {
        "panel": specs["model"] + " on " + specs["data"] if len(specs) else pd.Series(dtype=str),
        "norm_label": norm_label,
        "rest": rest,
        "family": family.where(family != "", alone),
        "arm": arm.where(arm != "", alone),
    }
    order = _natural_order(specs, ["data", "model", "norm", *is_norm, *is_rest, "lr"])
    return specs.assign(
        **{k: pd.Categorical(v, categories=pd.unique(v.iloc[order]), ordered=True) for k, v in texts.items()}
    )


def factors(specs: pd.DataFrame) -> list[str]:
    """The columns that differ, except the seed and those that the model and the dataset determine.

    A column that another one determines stays: without it, arms that differ in both would seem to differ in one.
    """
    unlabelled = {"run_id", "seed", *(f"{c}._target_" for c in CLASSES)}
    columns = [c for c in specs.columns if c not in (*unlabelled, *FIRST) and not is_recorded(c)]
    first = [c for c in FIRST if c in specs and (piece(specs, c) != "").any()]
    return [*first, *(c for c in columns if _differs(specs, c, ["model", "data", *_owners(specs, c)]).any())]


def is_recorded(column: str) -> bool:
    """Whether the column is about measurements of a run."""
    return column.split(".")[0] in RECORDED and column != EVALUATION_BATCH


def piece(specs: pd.DataFrame, column: str) -> pd.Series:
    """The piece of each run's label for `column`, "" where the column does not differ.

    A field such as `norm.eps` is compared within its class only.
    """
    texts, differs = _texts(specs[column]), _differs(specs, column, _owners(specs, column))
    if column in CLASSES:
        return texts.where(differs, "")
    owner, _, leaf = column.rpartition(".")
    if leaf == "_target_":  # of a class within a class, such as init.conv
        return (owner + "=" + texts.str.rpartition(".")[2]).where(differs, "")
    name = short_name(column)
    if f"{column}._target_" in specs:
        texts = _class_words(column, texts)
    clash = sum(short_name(c) == name and specs[c].map(_exact).nunique() > 1 for c in specs.columns) > 1
    return ((column if clash else name) + "=" + label_texts(column, texts)).where(differs, "")


def short_name(column: str) -> str:
    """`depth` for `model.depth`, `length.min` for `data.length.min`; `early_stopping.patience` as it is."""
    group, _, rest = column.partition(".")
    return rest if rest and group in CLASSES else column


def label_texts(column: str, texts: pd.Series) -> pd.Series:
    """The values of a column as typed, with a word for null that no other value has."""
    word = NULL_WORDS.get(column, "none")
    return texts if (texts == word).any() else texts.replace("null", word)


def _class_words(column: str, texts: pd.Series) -> pd.Series:
    """The names of classes; yes and no where the only class is named as its key, as in `early_stopping`."""
    own = column.rpartition(".")[2].replace("_", "")
    if {text.lower() for text in texts} <= {own, "null"}:
        return texts.map(lambda text: "no" if text == "null" else "yes")
    return texts


def _texts(values: pd.Series) -> pd.Series:
    """As typed on the command line; with all digits where fewer would make two values equal."""
    shown, exact = values.map(as_typed), values.map(_exact)
    return (shown if shown.nunique() == exact.nunique() else exact).astype(object)


def _with_dotted_names(specs: pd.DataFrame) -> pd.DataFrame:
    """Full dotted names in the columns of `CLASSES` where several classes have the same name."""
    full = {}
    for column in CLASSES:
        target = f"{column}._target_"
        if target in specs:
            shared = specs.groupby(column)[target].transform("nunique") > 1
            full[column] = specs[column].mask(shared, specs[target])
    return specs.assign(**full)


def _owners(specs: pd.DataFrame, column: str) -> list[str]:
    """The columns that hold the class of which `column` is a field, the outermost first."""
    if column == EVALUATION_BATCH:  # the norm decides whether it has an effect
        return ["norm"]
    parts = column.split(".")
    parents = [".".join(parts[:i]) for i in range(1, len(parts))]
    return [c for p in parents for c in (p, f"{p}._target_") if c in specs and c != column]


def _differs(specs: pd.DataFrame, column: str, within: Sequence[str]) -> pd.Series:
    """For each run, whether `column` differs among those that agree with it in the columns `within`."""
    texts = _texts(specs[column])
    if texts.nunique() < 2:
        return pd.Series(False, specs.index)
    groups = specs.groupby(list(within), dropna=False).ngroup() if within else pd.Series(0, specs.index)
    return texts.groupby(groups).transform("nunique") > 1


def join_pieces(specs: pd.DataFrame, pieces: Mapping[str, pd.Series], columns: Sequence[str]) -> pd.Series:
    """The non-empty pieces of each run, joined by commas."""
    rows = zip(*(pieces[c] for c in columns if c in pieces), strict=True)
    texts = [commas(*row) for row in rows] or [""] * len(specs)
    return pd.Series(texts, specs.index, dtype=object)


def commas(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


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


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def as_typed(value: Any) -> str:
    """As typed on the command line."""
    return show(None if _is_missing(value) else value)


def _exact(value: Any) -> str:
    return "null" if _is_missing(value) else str(value)


LEAST_RATES = 7
"""Of a grid among which the choice of a learning rate is fair."""


def tried_with_all_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of a family at the rates that all of its seeds were tried at; all runs if these rates are too few.

    Another pass with other seeds may have added rates of its own.
    """
    seeds = runs.groupby("lr")["seed"].nunique()
    complete = seeds.index[seeds == runs["seed"].nunique()]
    return runs[runs["lr"].isin(complete)] if len(complete) >= LEAST_RATES else runs


def scores_by_rate(runs: pd.DataFrame, score: str = "score") -> pd.DataFrame:
    """The scores of a family, with a row for each seed and a column for each learning rate, ascending."""
    return runs.pivot(index="seed", columns="lr", values=score).astype(float)


def best_rate(scores: pd.DataFrame) -> float:
    """The learning rate with the highest mean score over the seeds, the smaller of equals; NaN for no seeds."""
    means = scores.mean().dropna().round(12)  # equal means differ by rounding
    return float(means.idxmax()) if len(means) else math.nan


def rates_by_other_seeds(scores: pd.DataFrame) -> pd.Series:
    """By seed, the best rate of all other seeds: no seed chooses for itself, unless it is alone."""
    if len(scores) == 1:
        return pd.Series(best_rate(scores), scores.index)
    return pd.Series({seed: best_rate(scores.drop(seed)) for seed in scores.index}, dtype=float)


def runs_at(runs: pd.DataFrame, rates: pd.Series) -> pd.DataFrame:
    """The run of each seed at its rate in `rates`."""
    return runs[runs["lr"] == runs["seed"].map(rates)]


def tuned_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of a family, each seed at the rate that all other seeds choose by `score`; a single seed at its own."""
    return runs_at(runs, rates_by_other_seeds(scores_by_rate(tried_with_all_seeds(runs))))


def best_arms(runs: pd.DataFrame) -> pd.DataFrame:
    """The arm of each family at its `best_rate`.

    Columns: `panel` `family` `norm` `norm_label` `rest` `arm` `lr` `rates` (how many the family has) and `edge`: the
    best rate is the smallest or largest of at least three, and some run at it learned, so that a better one may lie
    beyond.
    """
    keys = ["panel", "family", "norm", "norm_label", "rest", "arm", "lr"]
    best = []
    needed = runs[[*keys, "seed", "score", "counts_as_guessing"]]  # dividing all columns takes ten times as long
    for _, own in needed.groupby(["panel", "family"], observed=True):
        scores = scores_by_rate(tried_with_all_seeds(own))
        rate = best_rate(scores)
        at_best = own[own["lr"] == (scores.columns[0] if math.isnan(rate) else rate)]
        on_edge = rate in (scores.columns[0], scores.columns[-1]) and len(scores.columns) >= 3
        edge = on_edge & ~at_best["counts_as_guessing"].all()
        best.append(at_best[keys].iloc[:1].assign(rates=len(scores.columns), edge=edge))
    return pd.concat(best, ignore_index=True)
