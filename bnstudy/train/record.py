"""What runs have measured so far. Values stay on the device until `flush`, so that recording never waits for it."""

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


class Record:
    """Training loss at every step, and rows of whatever else was measured, of R runs in step with one another.

    `losses` [total, R] is written to directly by the step; entries not reached are NaN. A row is the same for all
    runs but for its R values.
    """

    def __init__(self, total: int, runs: int, device: torch.device) -> None:
        self.losses = torch.full((total, runs), math.nan, device=device)
        self.rows: list[Row] = []
        self.values = np.empty((0, runs))
        self.timing: list[tuple[int, float]] = []
        self._pending: list[Tensor] = []
        self._columns: tuple[tuple[int, int], dict[str, pa.Array], int] | None = None

    def add(self, step: int, split: str, metric: str, by_layer: Mapping[str, Tensor]) -> None:
        """Rows of tensors [R], or scalars where there is one run: one a layer."""
        self.rows.extend((step, split, metric, layer) for layer in by_layer)
        self._pending.extend(value.detach().float().reshape(-1) for value in by_layer.values())

    def flush(self) -> None:
        """Move what is pending to the host: one transfer."""
        if self._pending:
            new = torch.stack(self._pending).cpu().numpy().astype(np.float64)
            self.values = np.concatenate([self.values, new])
            self._pending.clear()

    def keep(self, runs: Sequence[int]) -> None:
        """Go on with these runs only."""
        self.flush()
        self.losses = self.losses[:, list(runs)]
        self.values = self.values[:, list(runs)]

    def first_bad_steps(self, done: int) -> dict[int, tuple[int, str]]:
        """The runs that diverged among the first `done` losses, where and why: a NaN or infinite loss, or one above
        ten times the initial."""
        losses = self.losses[:done]
        bad = ~torch.isfinite(losses) | (losses > 10 * losses[:1])
        if not bool(bad.any()):
            return {}
        first = bad.int().argmax(0)
        values = losses.gather(0, first[None])[0]
        found = zip(bad.any(0).tolist(), first.tolist(), values.tolist(), strict=True)
        return {run: (step, why_diverged(value)) for run, (is_bad, step, value) in enumerate(found) if is_bad}

    def series(self, run: int, split: str, metric: str, until: int) -> list[tuple[int, float]]:
        """(step, value) of a metric of a run's whole network up to step `until`."""
        rows = zip(self.rows, self.values[:, run].tolist(), strict=True)
        return [(r[0], v) for r, v in rows if r[1:] == (split, metric, "") and r[0] <= until]

    def latest(self, run: int, split: str, metric: str, until: int) -> float:
        """The last value of a metric of a run's whole network at or before step `until`; NaN if there is none."""
        found = self.series(run, split, metric, until)
        return found[-1][1] if found else math.nan

    def metrics(self, run: int, until: int, steps_per_epoch: int) -> pa.Table:
        """The tidy table of everything measured of a run up to step `until`."""
        columns, kept = self._all_but_values(until, steps_per_epoch)
        values = np.concatenate(
            [self.losses[: until + 1, run].cpu().numpy().astype(np.float64), self.values[:kept, run]]
        )
        return pa.table({**columns, "value": pa.array(values)}).cast(METRICS_SCHEMA)

    def _all_but_values(self, until: int, steps_per_epoch: int) -> tuple[dict[str, pa.Array], int]:
        """The columns that all runs share, made once, and how many rows beside the losses they hold."""
        key = until, steps_per_epoch
        if self._columns is None or self._columns[0] != key:
            steps = range(min(until + 1, len(self.losses)))
            kept = [r for r in self.rows if r[0] <= until]
            rows = [*((step, "train", "loss", "") for step in steps), *kept]
            step, split, metric, layer = (list(column) for column in zip(*rows, strict=True))
            columns = {
                "step": pa.array(step, pa.int64()),
                "epoch": pa.array(np.array(step) / steps_per_epoch, pa.float64()),
                "split": pa.array(split).dictionary_encode(),
                "metric": pa.array(metric).dictionary_encode(),
                "layer": pa.array(layer).dictionary_encode(),
            }
            self._columns = key, columns, len(kept)
        return self._columns[1:]

    def timings(self, until: int) -> pa.Table:
        """Cumulative training seconds by step, and the mean per update since the row before."""
        kept = [(s, t) for s, t in self.timing if s <= until]
        rates = [math.nan] + [(t1 - t0) / max(1, s1 - s0) for (s0, t0), (s1, t1) in pairwise(kept)]
        steps, seconds = zip(*kept, strict=True)
        return pa.table({"step": steps, "seconds": seconds, "step_seconds": rates}).cast(TIMING_SCHEMA)

    def state(self, run: int) -> dict[str, Any]:
        """A run's share as plain data and tensors, as its checkpoint holds them."""
        self.flush()
        values = self.values[:, run].tolist()
        return {"losses": self.losses[:, run].clone(), "rows": self.rows, "values": values, "timing": self.timing}

    def load(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Go on from the runs' shares."""
        self.losses.copy_(torch.stack([state["losses"] for state in states], 1))
        self.rows = [tuple(row) for row in states[0]["rows"]]
        self.values = np.array([state["values"] for state in states], dtype=np.float64).T.reshape(-1, len(states))
        self.timing = [tuple(row) for row in states[0]["timing"]]


def why_diverged(loss: float) -> str:
    return "training loss above 10 times the initial" if math.isfinite(loss) else f"training loss {loss}"
