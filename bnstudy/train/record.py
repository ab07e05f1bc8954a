"""What is recorded of runs: their measurements, the time that they take, and their outcome."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from bnstudy.data.dataset import Dataset
from bnstudy.store.columns import numbers, texts
from bnstudy.store.runs import METRICS_SCHEMA, TIMING_SCHEMA
from bnstudy.train.divergence import Divergence, final_divergence, find_diverged

Row = tuple[int, str, str, str]
"""step, split, metric, layer"""

MARGIN = 0.05
"""A run whose final accuracy is less than this far above that of guessing did not learn."""


@dataclass(frozen=True)
class Outcome:
    """The result of a run.

    learned: False for a run that made all its steps without divergence and ended near guessing; None if it diverged, or
        has nothing to learn or no accuracy.
    stopped_step: the step at which early stopping ended the run; None if it did not.
    best: the evaluation with the highest validation accuracy; with early stopping, the best one by its own measure.
    seconds: by purpose.
    probe_seconds: by probe.
    test_correct: bool [m], which test images the run classifies correctly at its end; None without labels, or if the
        run diverged.
    """

    status: str
    learned: bool | None
    diverged_step: int | None
    diverged_because: str | None
    stopped_step: int | None
    metrics: pa.Table
    timing: pa.Table
    final: dict[str, float]
    best: dict[str, float]
    seconds: dict[str, float]
    probe_seconds: dict[str, float] = field(default_factory=dict)
    test_correct: np.ndarray | None = None


class Record:
    """The training loss of R runs at every step, and rows of everything else that is measured.

    Values stay on the device until `flush`, so that recording never waits for it.

    guessing: the training loss of guessing; not a positive number where there is no such bound.
    planned: the number of steps that the runs make unless they stop early.
    losses: [total, R]; NaN where a step is not made yet. The training loop writes to it.
    rows: the runs share them; `values` [rows, R] has a column for each run.
    timing: (step, seconds of training until then) at each measurement.
    test_correct: bool [R, m] on the host, which test images each run classifies correctly after the last step; None
        before, and without labels. It is no part of `state`: the runs leave before the next checkpoint.
    """

    def __init__(
        self, total: int, steps_per_epoch: int, runs: int, device: torch.device, guessing: float = math.nan
    ) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.guessing = guessing
        self.planned = total
        self.losses = torch.full((total, runs), math.nan, device=device)
        self.rows: list[Row] = []
        self.values = np.empty((0, runs))
        self.timing: list[tuple[int, float]] = []
        self.test_correct: Tensor | None = None
        self._pending: list[Tensor] = []
        self._columns: tuple[int, list[pa.Array], int] | None = None
        self._places: dict[tuple[str, str], list[int]] = {}

    def add(self, step: int, split: str, metric: str, by_layer: Mapping[str, Tensor]) -> None:
        """Add a row for each layer.

        Args:
            by_layer: tensors whose first R entries are the values of the runs; scalars for one run.
        """
        runs = self.losses.shape[1]
        self._extend([(step, split, metric, layer) for layer in by_layer])
        self._pending.extend(value.detach().float().reshape(-1)[:runs] for value in by_layer.values())

    def _extend(self, rows: Iterable[Row]) -> None:
        for row in rows:
            if not row[3]:
                self._places.setdefault(row[1:3], []).append(len(self.rows))
            self.rows.append(row)

    def flush(self) -> None:
        """Move pending values to the host, in one transfer."""
        if self._pending:
            new = torch.stack(self._pending).cpu().numpy().astype(np.float64)
            self.values = np.concatenate([self.values, new])
            self._pending.clear()

    def keep(self, runs: Sequence[int]) -> None:
        """Drop all but these runs."""
        self.flush()
        self.losses = self.losses[:, list(runs)]
        self.values = self.values[:, list(runs)]

    def find_diverged(self, done: int) -> dict[int, Divergence]:
        """The runs that diverged within the first `done` steps."""
        return find_diverged(self.losses[:done], self.guessing, self.planned)

    def _learned(self, run: int, dataset: Dataset) -> bool | None:
        """Whether the final validation accuracy is above that of guessing; None where there is nothing to learn."""
        metric, guessing = "accuracy", dataset.guessing["val"]
        if dataset.is_unbalanced:
            metric, guessing = "balanced_accuracy", 1 / len(dataset.val.y.unique())
        accuracy = self.latest(run, "val", metric, len(self.losses))
        if guessing is None or not dataset.is_learnable or math.isnan(accuracy):
            return None
        return accuracy >= guessing + MARGIN

    def series(self, run: int, split: str, metric: str, until: int) -> list[tuple[int, float]]:
        """(step, value) of a metric of the whole network up to step `until`."""
        places = self._places.get((split, metric), [])
        values = self.values[places, run].tolist()
        return [(self.rows[i][0], v) for i, v in zip(places, values, strict=True) if self.rows[i][0] <= until]

    def latest(self, run: int, split: str, metric: str, until: int) -> float:
        """The last value of a metric of the whole network up to step `until`; NaN if there is none."""
        found = self.series(run, split, metric, until)
        return found[-1][1] if found else math.nan

    def _at(self, run: int, step: int) -> dict[str, float]:
        """Loss and accuracy at an evaluation, by split and metric; NaN where not measured."""
        kinds = [(split, metric) for split in ("val", "test") for metric in ("loss", "accuracy")]
        return {f"{s}_{m}": dict(self.series(run, s, m, step)).get(step, math.nan) for s, m in kinds}

    def metrics(self, run: int, until: int) -> pa.Table:
        """The tidy table of a run's measurements up to step `until`."""
        columns, kept = self._shared_columns(until)
        values = np.concatenate(
            [self.losses[: until + 1, run].cpu().numpy().astype(np.float64), self.values[:kept, run]]
        )
        return pa.Table.from_arrays([*columns, numbers(values, np.float64)], schema=METRICS_SCHEMA)

    def _shared_columns(self, until: int) -> tuple[list[pa.Array], int]:
        """The columns that all runs share, made once, and how many of `rows` they hold."""
        if self._columns is None or self._columns[0] != until:
            kept = [r for r in self.rows if r[0] <= until]
            columns = self._columns_of(range(min(until + 1, len(self.losses))), kept)
            self._columns = until, columns, len(kept)
        return self._columns[1:]

    def part(self, steps: range, rows: range) -> list[pa.Table]:
        """The training losses of these steps and these of `rows`, which are flushed: a table like `metrics` a run."""
        columns = self._columns_of(steps, self.rows[rows.start : rows.stop])
        losses = self.losses[steps.start : steps.stop].cpu().numpy().astype(np.float64)
        values = np.concatenate([losses, self.values[rows.start : rows.stop]])
        return [pa.Table.from_arrays([*columns, numbers(own, np.float64)], schema=METRICS_SCHEMA) for own in values.T]

    def _columns_of(self, steps: range, rows: Sequence[Row]) -> list[pa.Array]:
        """The columns of training losses at these steps and of these rows, but for the values."""
        every = [*((step, "train", "loss", "") for step in steps), *rows]
        step, split, metric, layer = (list(column) for column in zip(*every, strict=True)) if every else ([],) * 4
        epoch = numbers(np.array(step) / self.steps_per_epoch, np.float64)
        return [numbers(step, np.int64), epoch, *map(texts, (split, metric, layer))]

    def timings(self, until: int) -> pa.Table:
        """Cumulative training seconds by step, and the mean seconds of a step since the row before."""
        kept = [(s, t) for s, t in self.timing if s <= until]
        rates = [math.nan] + [(t1 - t0) / max(1, s1 - s0) for (s0, t0), (s1, t1) in pairwise(kept)]
        steps, seconds = zip(*kept, strict=True)
        columns = [numbers(steps, np.int64), numbers(seconds, np.float64), numbers(rates, np.float64)]
        return pa.Table.from_arrays(columns, schema=TIMING_SCHEMA)

    def conclude(
        self,
        run: int,
        divergence: Divergence | None,
        dataset: Dataset,
        seconds: Mapping[str, float],
        probe_seconds: Mapping[str, float],
        best_step: int | None = None,
        stopped_step: int | None = None,
    ) -> Outcome:
        """The outcome of a run that has diverged, or else has made all its steps.

        best_step: that of the best evaluation; None, or one behind divergence, for that with the highest validation
            accuracy.
        """
        learned = None if divergence else self._learned(run, dataset)
        total = len(self.losses)
        measured_until = divergence[0] if divergence else total
        val_losses = [value for _, value in self.series(run, "val", "loss", total)]
        divergence = divergence or final_divergence(self.losses[:, run], val_losses, learned, self.guessing)
        until = total if divergence is None else divergence[0]
        if best_step is None or best_step > until:
            accuracies = self.series(run, "val", "accuracy", until)
            best_step = max(accuracies, key=lambda row: row[1])[0] if accuracies else until
        # Contiguous, since the mean of a column is summed in another order.
        last_epoch = self.losses[max(0, until - self.steps_per_epoch) : until + 1, run].contiguous()
        step, reason = divergence or (None, None)
        measured = ("loss", "accuracy", *(["balanced_accuracy"] if dataset.is_unbalanced else []))
        return Outcome(
            status="diverged" if divergence else "finished",
            learned=None if divergence else learned,
            diverged_step=step,
            diverged_because=reason,
            metrics=self.metrics(run, measured_until),
            timing=self.timings(measured_until),
            final={
                "train_loss": float(last_epoch.mean()),
                **{f"{split}_{m}": self.latest(run, split, m, until) for split in ("val", "test") for m in measured},
            },
            best={"step": best_step, **self._at(run, best_step)},
            stopped_step=None if divergence else stopped_step,
            seconds={**seconds, "total": sum(seconds.values())},
            probe_seconds=dict(probe_seconds),
            test_correct=None if self.test_correct is None or divergence else self.test_correct[run].numpy(),
        )

    def state(self, run: int) -> dict[str, Any]:
        """A run's part as plain data and tensors, for its checkpoint."""
        self.flush()
        values = self.values[:, run].tolist()
        return {"losses": self.losses[:, run].clone(), "rows": self.rows, "values": values, "timing": self.timing}

    def state_before(self, run: int, step: int) -> dict[str, Any]:
        """A run's part as if `step` were the run's last, and nothing were measured there yet."""
        state = self.state(run)
        kept = [i for i, row in enumerate(self.rows) if row[0] < step]
        measured = {"rows": [self.rows[i] for i in kept], "values": [state["values"][i] for i in kept]}
        timing = [row for row in self.timing if row[0] < step]
        return {"losses": state["losses"][:step], **measured, "timing": timing}

    def load(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Continue from the parts of the runs."""
        self.losses.copy_(torch.stack([state["losses"] for state in states], 1))
        self.rows, self._places = [], {}
        self._extend(tuple(row) for row in states[0]["rows"])
        self.values = np.array([state["values"] for state in states], dtype=np.float64).T.reshape(-1, len(states))
        self.timing = [tuple(row) for row in states[0]["timing"]]


class Stopwatch:
    """Seconds by purpose. When `shared_by` runs are trained at once, each counts its equal share.

    Purposes nest: an inner one suspends the outer one. On a GPU a purpose ends when its work is done.
    """

    def __init__(self, device: torch.device, shared_by: int) -> None:
        self.seconds = {"starting": 0.0, "training": 0.0, "evaluation": 0.0, "probes": 0.0}
        self.shared_by = shared_by
        self._cuda = device if device.type == "cuda" else None
        self._purpose: str | None = None
        self._since = 0.0

    @contextmanager
    def __call__(self, purpose: str | None) -> Iterator[None]:
        """Count the time inside for this purpose; for None, do not count it."""
        outer = self._purpose
        self._switch(purpose)
        try:
            yield
        finally:
            self._switch(outer)

    def _switch(self, purpose: str | None) -> None:
        if self._cuda is not None:
            torch.cuda.synchronize(self._cuda)
        now = time.perf_counter()
        if self._purpose is not None:
            self.seconds[self._purpose] += (now - self._since) / self.shared_by
        self._purpose, self._since = purpose, now
