"""What a run has measured so far. Values stay on the device until `flush`, so that recording never waits for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from bnstudy.files import METRICS, TIMING

Row = tuple[int, str, str, str]
"""step, split, metric, layer"""


class Record:
    """Training loss at every step, and rows of whatever else was measured.

    `losses` [total] is written to directly by the step; entries not reached are NaN.
    """

    def __init__(self, total: int, device: torch.device) -> None:
        self.losses = torch.full((total,), math.nan, device=device)
        self.rows: list[Row] = []
        self.values: list[float] = []
        self.timing: list[tuple[int, float]] = []
        self._pending: list[Tensor] = []

    def add(self, step: int, split: str, metric: str, by_layer: Mapping[str, Tensor]) -> None:
        """Rows of scalar tensors, one a layer."""
        self.rows.extend((step, split, metric, layer) for layer in by_layer)
        self._pending.extend(value.detach().float() for value in by_layer.values())

    def flush(self) -> None:
        """Move what is pending to the host: one transfer."""
        if self._pending:
            self.values.extend(torch.stack(self._pending).tolist())
            self._pending.clear()

    def first_bad_step(self, done: int) -> tuple[int, str] | None:
        """Where among the first `done` losses the run diverged, and why: a NaN or infinite loss, or one above ten
        times the initial."""
        losses = self.losses[:done]
        bad = ~torch.isfinite(losses) | (losses > 10 * losses[:1])
        if not bool(bad.any()):
            return None
        step = int(bad.nonzero()[0])
        value = float(losses[step])
        return step, "training loss above 10 times the initial" if math.isfinite(value) else f"training loss {value}"

    def latest(self, split: str, metric: str, until: int) -> float:
        """The last value of a metric of the whole network at or before step `until`; NaN if there is none."""
        found = [
            v for r, v in zip(self.rows, self.values, strict=True) if r[1:] == (split, metric, "") and r[0] <= until
        ]
        return found[-1] if found else math.nan

    def series(self, split: str, metric: str, until: int) -> list[tuple[int, float]]:
        """(step, value) of a metric of the whole network up to step `until`."""
        rows = zip(self.rows, self.values, strict=True)
        return [(r[0], v) for r, v in rows if r[1:] == (split, metric, "") and r[0] <= until]

    def metrics(self, until: int, steps_per_epoch: int) -> pa.Table:
        """The tidy table of everything measured up to step `until`."""
        losses = self.losses[: until + 1].tolist()
        rows: list[Row] = [(step, "train", "loss", "") for step in range(len(losses))]
        kept = [(r, v) for r, v in zip(self.rows, self.values, strict=True) if r[0] <= until]
        rows += [r for r, _ in kept]
        step, split, metric, layer = (list(column) for column in zip(*rows, strict=True))
        columns: dict[str, Any] = {
            "step": pa.array(step, pa.int64()),
            "epoch": pa.array([s / steps_per_epoch for s in step], pa.float64()),
            "split": pa.array(split).dictionary_encode(),
            "metric": pa.array(metric).dictionary_encode(),
            "layer": pa.array(layer).dictionary_encode(),
            "value": pa.array(losses + [v for _, v in kept], pa.float64()),
        }
        return pa.table(columns).cast(METRICS)

    def timings(self, until: int) -> pa.Table:
        """Cumulative training seconds by step, and the mean per update since the row before."""
        kept = [(s, t) for s, t in self.timing if s <= until]
        rates = [math.nan] + [(t1 - t0) / max(1, s1 - s0) for (s0, t0), (s1, t1) in pairwise(kept)]
        steps, seconds = zip(*kept, strict=True)
        return pa.table({"step": steps, "seconds": seconds, "step_seconds": rates}).cast(TIMING)

    def state(self) -> dict[str, Any]:
        """Plain data and tensors, as a checkpoint holds them."""
        self.flush()
        return {"losses": self.losses, "rows": self.rows, "values": self.values, "timing": self.timing}

    def load(self, state: Mapping[str, Any]) -> None:
        self.losses.copy_(state["losses"])
        self.rows = [tuple(row) for row in state["rows"]]
        self.values = list(state["values"])
        self.timing = [tuple(row) for row in state["timing"]]
