"""Were runs trained on the same images? Their checksums are compared where their settings describe the same dataset."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

SPLITS = "splits:"
"""Begins a checksum of the splits, which depends on how the dataset is divided; others are of the undivided dataset."""

DIVISION = ("train_size", "test_size", "val_fraction", "scale")
"""Settings of a dataset that divide it and scale its pixels."""

USE = ("augment", "length", "length.min", "length.max", "test_lengths")
"""Settings of how its images are used, in specs and as columns of `load_runs`."""

GENERATED = "bnstudy.data.gaussian.Gaussian"
"""Its settings alone determine the data, but for rounding: earlier versions had other checksums on other CPUs."""


def source(data: Mapping[str, Any], checksum: str) -> str:
    """What determines the images. Runs with equal sources and different checksums were trained on different images.

    Args:
        data: the settings of the dataset, as in a spec or as the columns `data.*` of `load_runs`.
        checksum: of the dataset.
    """
    others = USE if checksum.startswith(SPLITS) else (*USE, *DIVISION)
    named = {key.removeprefix("data."): value for key, value in data.items()}
    return json.dumps({k: v for k, v in named.items() if k not in others}, sort_keys=True, default=str)


def is_generated(data: Mapping[str, Any]) -> bool:
    """Whether the settings, as for `source`, are of a dataset that has one version only."""
    return data.get("_target_", data.get("data._target_")) == GENERATED


def find_versions(runs: Iterable[tuple[str, Mapping[str, Any], Any]]) -> list[dict[str, list[str]]]:
    """The runs, by checksum, of each source with several of them. Runs without a checksum are left out.

    Args:
        runs: the run_id, the settings of the dataset and its checksum.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for run_id, data, checksum in runs:
        if (
            isinstance(checksum, str) and checksum and not is_generated(data)
        ):  # a dataset of an earlier version may have none
            found.setdefault(source(data, checksum), {}).setdefault(checksum, []).append(run_id)
    return [versions for versions in found.values() if len(versions) > 1]


def shorten(checksum: str) -> str:
    """The first digits, which tell versions apart."""
    return checksum.removeprefix(SPLITS)[:6]


def describe_versions(label: str, versions: Mapping[str, list[str]]) -> str:
    """A sentence on the runs, by checksum, that were trained on different images of one name."""
    counts = [f"{list_runs(ids)} on images {shorten(checksum)}" for checksum, ids in versions.items()]
    return (
        f"{label} has named different images, so that these runs must not be pooled or compared: {'; '.join(counts)}. "
        "To get rid of a version, move the folders of its runs out of the store; the same command trains them again."
    )


def list_runs(run_ids: list[str]) -> str:
    """`"3 runs (0b1c..., 1f3d... and 1 more)"`"""
    if len(run_ids) == 1:
        return f"run {run_ids[0]}"
    others = f" and {len(run_ids) - 2} more" if len(run_ids) > 2 else ""
    return f"{len(run_ids)} runs ({', '.join(run_ids[:2])}{others})"
