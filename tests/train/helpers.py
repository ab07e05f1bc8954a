"""Helpers of the tests that train runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from bnstudy.data.dataset import Dataset
from bnstudy.run import RunSpec
from bnstudy.train.loop import Training, start_serial, start_stacked
from bnstudy.train.record import Outcome
from tests.conftest import CPU

ENGINES = {
    "serial": lambda specs, dataset: start_serial(specs[0], dataset, CPU),
    "stacked": lambda specs, dataset: start_stacked(specs, dataset, CPU),
}
"""Start training: the first of the runs, or all of them."""


def train_all(training: Training) -> dict[str, Outcome]:
    """Train to the end; returns the outcomes by run_id, in the order in which the runs left."""
    outcomes: dict[str, Outcome] = {}
    training.train(lambda left: outcomes.update({spec.run_id: outcome for spec, outcome in left}))
    return outcomes


def train_one(training: Training) -> Outcome:
    """Train a single run to the end."""
    [outcome] = train_all(training).values()
    return outcome


def train_serial(spec: RunSpec, dataset: Dataset) -> Outcome:
    return train_one(start_serial(spec, dataset, CPU))


def train_until(training: Training, step: int) -> None:
    """Train until `step` steps are done, then stop between two steps as a signal would."""

    class Stop(Exception):
        pass

    def stop(training: Training) -> None:
        if training.step >= step:
            raise Stop

    training.beat_seconds = 0
    try:
        training.train(lambda _: None, stop)
    except Stop:
        return
    raise AssertionError(f"training ended before step {step}")


def values_by_step(table: pa.Table, split: str, metric: str, layer: str = "") -> dict[int, float]:
    frame = table.to_pandas()
    chosen = frame[(frame.split == split) & (frame.metric == metric) & (frame.layer == layer)]
    return dict(zip(chosen.step, chosen.value, strict=True))


def assert_same_outcome(ours: Outcome, theirs: Outcome, tolerance: float) -> None:
    """Status and measured rows are equal; values differ by at most `tolerance`, relative or absolute."""
    assert (ours.status, ours.learned, ours.diverged_step, ours.diverged_because) == (
        theirs.status,
        theirs.learned,
        theirs.diverged_step,
        theirs.diverged_because,
    )
    assert ours.metrics.drop(["value"]).equals(theirs.metrics.drop(["value"]))
    np.testing.assert_allclose(ours.metrics["value"], theirs.metrics["value"], rtol=tolerance, atol=tolerance)
    assert ours.final == pytest.approx(theirs.final, rel=tolerance, abs=tolerance)
    assert_same_answers(ours, theirs)


def assert_identical(ours: Outcome, theirs: Outcome) -> None:
    """Equal bit for bit, except for the seconds."""
    assert ours.metrics.equals(theirs.metrics)
    assert (ours.status, ours.learned) == (theirs.status, theirs.learned)
    assert (ours.final, ours.best) == (theirs.final, theirs.best)
    assert_same_answers(ours, theirs)


def assert_same_answers(ours: Outcome, theirs: Outcome) -> None:
    """The same test images are classified correctly, or neither run recorded which."""
    assert (ours.test_correct is None) == (theirs.test_correct is None)
    assert np.array_equal(ours.test_correct, theirs.test_correct)


def assert_same_state(ours: Mapping[str, Any], theirs: Mapping[str, Any], tolerance: float) -> None:
    """Parameters, optimizer state and buffers are equal within `tolerance` times the norm of each tensor."""
    assert_close(ours["params"], theirs["params"], tolerance, "params")
    for kind in ("slots", "buffers"):
        our, their = (without_norm_settings(state[kind]) for state in (ours, theirs))
        assert our.keys() == their.keys()
        for name in our:
            assert_close(our[name], their[name], tolerance, name)


def without_norm_settings(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors but eps and momentum of norms, which only written-out norms keep as buffers."""
    return {name: t for name, t in tensors.items() if not name.endswith((".eps", ".momentum"))}


def assert_close(our: Tensor, their: Tensor, tolerance: float, name: str) -> None:
    our, their = our.double(), their.double()
    assert torch.linalg.vector_norm(our - their) <= tolerance * torch.linalg.vector_norm(their), name
