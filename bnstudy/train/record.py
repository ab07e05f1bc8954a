"""The measurements of runs so far. Values stay on the device until `flush`, so that recording never waits for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from bnstudy.store.runs import METRICS_SCHEMA, TIMING_SCHEMA

Row = tuple[int, str, str, str]
"""step, split, metric, layer"""

Divergence = tuple[int, str]
"""The first bad step and the reason."""


class Record:
    """The training loss of R runs at every step, and rows of everything else that is measured.

    losses: [total, R]; NaN where a step is not made yet. The training loop writes to it.
    rows: the runs share them; `values` [rows, R] has a column for each run.
    timing: (step, seconds of training until then) at each measurement.
    """

    def __init__(self, total: int, steps_per_epoch: int, runs: int, device: torch.device) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.losses = torch.full((total, runs), math.nan, device=device)
        self.rows: list[Row] = []
        self.values = np.empty((0, runs))
        self.timing: list[tuple[int, float]] = []
        self._pending: list[Tensor] = []
        self._columns: tuple[int, dict[str, pa.Array], int] | None = None

    def add(self, step: int, split: str, metric: str, by_layer: Mapping[str, Tensor]) -> None:
        """Add a row for each layer.

        Args:
            by_layer: tensors whose first R entries are the values of the runs; scalars for one run.
        """
        runs = self.losses.shape[1]
        self.rows.extend((step, split, metric, layer) for layer in by_layer)
        self._pending.extend(value.detach().float().reshape(-1)[:runs] for value in by_layer.values())

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
        """The runs that diverged within the first `done` steps: their loss was NaN, infinite, or above 10 times the
        initial loss."""
        losses = self.losses[:done]
        bad = ~torch.isfinite(losses) | (losses > 10 * losses[:1])
        if not bool(bad.any()):
            return {}
        first = bad.int().argmax(0)
        values = losses.gather(0, first[None])[0]
        found = zip(bad.any(0).tolist(), first.tolist(), values.tolist(), strict=True)
        return {run: (step, why_diverged(value)) for run, (is_bad, step, value) in enumerate(found) if is_bad}

    def series(self, run: int, split: str, metric: str, until: int) -> list[tuple[int, float]]:
        """(step, value) of a metric of the whole network up to step `until`."""
        rows = zip(self.rows, self.values[:, run].tolist(), strict=True)
        return [(r[0], v) for r, v in rows if r[1:] == (split, metric, "") and r[0] <= until]

    def latest(self, run: int, split: str, metric: str, until: int) -> float:
        """The last value of a metric of the whole network up to step `until`; NaN if there is none."""
        found = self.series(run, split, metric, until)
        return found[-1][1] if found else math.nan

    def metrics(self, run: int, until: int) -> pa.Table:
        """The tidy table of a run's measurements up to step `until`."""
        columns, kept = self._shared_columns(until)
        values = np.concatenate(
            [self.losses[: until + 1, run].cpu().numpy().astype(np.float64), self.values[:kept, run]]
        )
        return pa.table({**columns, "value": pa.array(values)}).cast(METRICS_SCHEMA)

    def _shared_columns(self, until: int) -> tuple[dict[str, pa.Array], int]:
        """The columns that all runs share, made once, and how many of `rows` they hold."""
        if self._columns is None or self._columns[0] != until:
            steps = range(min(until + 1, len(self.losses)))
            kept = [r for r in self.rows if r[0] <= until]
            rows = [*((step, "train", "loss", "") for step in steps), *kept]
            step, split, metric, layer = (list(column) for column in zip(*rows, strict=True))
            columns = {
                "step": pa.array(step, pa.int64()),
                "epoch": pa.array(np.array(step) / self.steps_per_epoch, pa.float64()),
                "split": pa.array(split).dictionary_encode(),
                "metric": pa.array(metric).dictionary_encode(),
                "layer": pa.array(layer).dictionary_encode(),
            }
            self._columns = until, columns, len(kept)
        return self._columns[1:]

    def timings(self, until: int) -> pa.Table:
        """Cumulative training seconds by step, and the mean seconds of a step since the row before."""
        kept = [(s, t) for s, t in self.timing if s <= until]
        rates = [math.nan] + [(t1 - t0) / max(1, s1 - s0) for (s0, t0), (s1, t1) in pairwise(kept)]
        steps, seconds = zip(*kept, strict=True)
        return pa.table({"step": steps, "seconds": seconds, "step_seconds": rates}).cast(TIMING_SCHEMA)

    def state(self, run: int) -> dict[str, Any]:
        """A run's part as plain data and tensors, for its checkpoint."""
        self.flush()
        values = self.values[:, run].tolist()
        return {"losses": self.losses[:, run].clone(), "rows": self.rows, "values": values, "timing": self.timing}

    def load(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Continue from the parts of the runs."""
        self.losses.copy_(torch.stack([state["losses"] for state in states], 1))
        self.rows = [tuple(row) for row in states[0]["rows"]]
        self.values = np.array([state["values"] for state in states], dtype=np.float64).T.reshape(-1, len(states))
        self.timing = [tuple(row) for row in states[0]["timing"]]


def why_diverged(loss: float) -> str:
    return "training loss above 10 times the initial" if math.isfinite(loss) else f"training loss {loss}"
