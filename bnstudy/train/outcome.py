"""The result of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from bnstudy.data.dataset import Dataset
from bnstudy.train.record import Divergence, Record

CHANCE_MARGIN = 0.05


@dataclass(frozen=True)
class Outcome:
    """The result of a run.

    seconds: by purpose.
    probe_seconds: by probe.
    """

    status: str
    diverged_step: int | None
    diverged_because: str | None
    metrics: pa.Table
    timing: pa.Table
    final: dict[str, float]
    best: dict[str, float]
    seconds: dict[str, float]
    probe_seconds: dict[str, float] = field(default_factory=dict)


def conclude(
    record: Record,
    run: int,
    divergence: Divergence | None,
    dataset: Dataset,
    seconds: Mapping[str, float],
    probe_seconds: Mapping[str, float],
) -> Outcome:
    """The outcome of a run that has diverged, or else has made all its steps."""
    total = len(record.losses)
    until = total if divergence is None else divergence[0]
    accuracies = record.series(run, "val", "accuracy", until)
    learned = not accuracies or not dataset.is_learnable or accuracies[-1][1] >= 1 / dataset.classes + CHANCE_MARGIN
    if divergence is None and not learned:
        divergence = total, "final validation accuracy below chance + 5 points"
    best_step, best = max(accuracies, key=lambda row: row[1]) if accuracies else (until, math.nan)
    test_accuracies = dict(record.series(run, "test", "accuracy", until))
    # Contiguous, since the mean of a column is summed in another order.
    last_epoch = record.losses[max(0, until - record.steps_per_epoch) : until + 1, run].contiguous()
    return Outcome(
        status="finished" if divergence is None else "diverged",
        diverged_step=None if divergence is None else divergence[0],
        diverged_because=None if divergence is None else divergence[1],
        metrics=record.metrics(run, until),
        timing=record.timings(until),
        final={
            "train_loss": float(last_epoch.mean()),
            **{f"{s}_{m}": record.latest(run, s, m, until) for s in ("val", "test") for m in ("loss", "accuracy")},
        },
        best={"val_accuracy": best, "step": best_step, "test_accuracy": test_accuracies.get(best_step, math.nan)},
        seconds={**seconds, "total": sum(seconds.values())},
        probe_seconds=dict(probe_seconds),
    )
