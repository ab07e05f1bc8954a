"""What the tests of the engines share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from bnstudy.run import RunSpec
from bnstudy.train.loop import Engine
from bnstudy.train.serial import SerialRun
from bnstudy.train.state import Outcome
from tests.conftest import CPU


def outcomes(engine: Engine) -> dict[str, Outcome]:
    """Train to the end: what each run came to, by run_id, in the order in which they left."""
    found: dict[str, Outcome] = {}
    engine.train(lambda spec, outcome: found.update({spec.run_id: outcome}))
    return found


def outcome(engine: Engine) -> Outcome:
    """Train a lone run to the end."""
    [found] = outcomes(engine).values()
    return found


def serial(spec: RunSpec, dataset) -> Outcome:
    return outcome(SerialRun(spec, dataset, CPU))


def train_until(engine: Engine, step: int) -> None:
    """Train until `step` updates are done, and stop as a signal would: between two steps."""

    class Stop(Exception):
        pass

    def stop(engine: Engine) -> None:
        if engine.step >= step:
            raise Stop

    engine.beat_seconds = 0
    try:
        engine.train(lambda spec, outcome: None, stop)
    except Stop:
        return
    raise AssertionError(f"training ended before step {step}")


def rows(table: pa.Table, split: str, metric: str, layer: str = "") -> dict[int, float]:
    """A metric by step."""
    frame = table.to_pandas()
    chosen = frame[(frame.split == split) & (frame.metric == metric) & (frame.layer == layer)]
    return dict(zip(chosen.step, chosen.value, strict=True))


def assert_same_course(ours: Outcome, theirs: Outcome, tolerance: float) -> None:
    """Equal but for `tolerance`, relative and absolute: what was measured and when, and the verdicts."""
    assert (ours.status, ours.diverged_step, ours.diverged_because) == (
        theirs.status,
        theirs.diverged_step,
        theirs.diverged_because,
    )
    assert ours.metrics.drop(["value"]).equals(theirs.metrics.drop(["value"]))
    np.testing.assert_allclose(ours.metrics["value"], theirs.metrics["value"], rtol=tolerance, atol=tolerance)
    assert ours.final == pytest.approx(theirs.final, rel=tolerance, abs=tolerance)


def assert_same_state(ours: Mapping[str, Any], theirs: Mapping[str, Any], tolerance: float) -> None:
    """Parameters, optimizer state and buffers, each relative to the norm of its tensor."""
    assert_close(ours["params"], theirs["params"], tolerance, "params")
    for kind in ("slots", "buffers"):
        our, their = (without_numbers(state[kind]) for state in (ours, theirs))
        assert our.keys() == their.keys()
        for name in our:
            assert_close(our[name], their[name], tolerance, name)


def without_numbers(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All but eps and momentum of norms, which are there only where a norm is written out."""
    return {name: t for name, t in tensors.items() if not name.endswith((".eps", ".momentum"))}


def assert_close(our: torch.Tensor, their: torch.Tensor, tolerance: float, name: str) -> None:
    our, their = our.double(), their.double()
    assert torch.linalg.vector_norm(our - their) <= tolerance * torch.linalg.vector_norm(their), name
