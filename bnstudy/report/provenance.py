"""The provenance line of a page: how much was run, on what, by which version."""

from __future__ import annotations

import pandas as pd

from bnstudy.claims.changed_plans import describe_seeds
from bnstudy.claims.counterevidence import list_some
from bnstudy.report.summary import duration
from bnstudy.store.thin import LOSSES


def provenance(runs: pd.DataFrame, planned: int, is_thin: bool = False) -> list[str]:
    """`["476 of 476 runs", "seeds 0 to 13", "40 diverged", "Digits, 1,150 training images", "200 steps", ...]`."""
    devices = list_some(sorted(runs["device"].dropna().unique()))
    return [
        f"{len(runs):,} of {planned:,} runs",
        describe_seeds({*runs["seed"]}),
        *count_lost(runs),
        *describe_datasets(runs),
        *_spans("steps", runs["steps"]),
        *([f"training loss at {LOSSES} of them"] if is_thin else []),
        f"{duration(runs['seconds.training'].sum())} of training on {devices}",
        *describe_version(runs),
    ]


def count_lost(runs: pd.DataFrame) -> list[str]:
    """How many diverged, and how many did not learn, if any."""
    dull = int(runs["not_learned"].sum())
    return [f"{int(runs['diverged'].sum()):,} diverged", *([f"{dull:,} did not learn"] if dull else [])]


def describe_datasets(runs: pd.DataFrame) -> list[str]:
    """`["Digits: 1,150 training, 359 test images"]`, one for each dataset; their names alone where they are many."""
    sets = runs.drop_duplicates(["dataset.name", "dataset.train"]).sort_values(["dataset.name", "dataset.train"])
    names = sorted(sets["dataset.name"].astype(str).unique())
    if len(sets) > 2:
        return [list_some(names)]
    rows = zip(sets["dataset.name"], sets["dataset.train"], sets["dataset.test"], strict=True)
    return [f"{name}: {train:,} training, {test:,} test images" for name, train, test in rows]


def describe_version(runs: pd.DataFrame) -> list[str]:
    column = "versions.bnstudy"
    return [f"bnstudy {list_some(sorted(runs[column].dropna().unique()))}"] if column in runs else []


def _spans(name: str, values: pd.Series) -> list[str]:
    """`["200 steps"]` or `["60 to 400 steps"]`."""
    low, high = int(values.min()), int(values.max())
    count = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return [f"{count} {name.removesuffix('s') if count == '1' else name}"]
