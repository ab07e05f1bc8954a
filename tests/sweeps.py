"""Synthetic studies of frames alone: a network with and without normalization over a grid of learning rates."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from bnstudy.claims.arms import label
from bnstudy.claims.cases import Case
from bnstudy.claims.claim import claim_of
from bnstudy.claims.contrasts import Contrast
from bnstudy.claims.frames import StudyData

RATES = (0.00316, 0.00562, 0.01, 0.0178, 0.0316, 0.0562, 0.1, 0.178, 0.316, 0.562, 1.0, 1.78, 3.16)
STEPS = 400
NORMAL = np.random.default_rng(7).normal(size=(2, 40))
"""Noise by side and seed."""


@dataclass(frozen=True)
class Made:
    """The parameters of a synthetic study.

    fewer: by how much normalization lowers the share of units that die, 0.3 without. faster: factor of its convergence.
    limits: the largest learning rates without and with it that do not diverge.
    noise: sd of dead shares, and of the log of the time constants.
    """

    seeds: int = 14
    fewer: float = 0.0
    faster: float = 1.0
    limits: tuple[float, float] = (1.0, 3.16)
    noise: float = 0.01
    rates: Sequence[float] = RATES
    best: tuple[float, float] = (0.1, 0.316)
    diverged: Callable[[str, float, int], bool] = lambda norm, lr, seed: False
    missing: tuple[str, float, int] | None = None
    claims: tuple[str, ...] = ()
    models: tuple[str, ...] = ("MLP",)

    def study(self) -> StudyData:
        keys = itertools.product(self.models, ("NoNorm", "BatchNorm"), self.rates, range(self.seeds))
        rows = [self._run(*key) for key in keys]
        names = ["run_id", "model", "data", "norm", "lr", "seed"]
        everything = pd.DataFrame(rows).sort_values("run_id", ignore_index=True)
        specs = label(everything[names])
        gone = pd.Series(False, specs.index)
        if self.missing is not None:
            gone = everything[["norm", "lr", "seed"]].apply(tuple, axis=1) == self.missing
        labels = specs.drop(columns=names)
        runs = pd.concat([everything, labels], axis=1)[~gone].reset_index(drop=True)
        return StudyData(
            "made", "Is it?", "quick", ("bnstudy study=made",), tuple(specs["run_id"]), (), specs, runs,
            self._metrics(runs), pd.DataFrame(), {}, self.claims,
        )  # fmt: skip

    def _run(self, model: str, norm: str, lr: float, seed: int) -> dict:
        side = int(norm == "BatchNorm")
        lost = lr > self.limits[side] * 1.01 or self.diverged(norm, lr, seed)
        accuracy = 0.1 if lost else 0.9 - 0.05 * np.log10(lr / self.best[side]) ** 2
        return {
            "run_id": f"{model}-{norm}-{lr:g}-{seed:02d}", "model": model, "data": "Digits", "norm": norm, "lr": lr,
            "seed": seed, "diverged": lost, "counts_as_guessing": lost, "steps": STEPS, "chance": 0.1,
            "val_accuracy": accuracy, "test_accuracy": accuracy, "score": accuracy,
            "step_ms": np.nan, "engine": "stacked",
        }  # fmt: skip

    def dead(self, norm: str, seed: int) -> float:
        side = int(norm == "BatchNorm")
        return 0.3 - side * self.fewer + self.noise * NORMAL[side, seed]

    def time_constant(self, norm: str, seed: int) -> float:
        side = int(norm == "BatchNorm")
        return 60 / (self.faster if side else 1.0) * np.exp(self.noise * NORMAL[side, seed])

    def _metrics(self, runs: pd.DataFrame) -> pd.DataFrame:
        step = np.arange(0, STEPS + 1, 10)
        rows = []
        for run in runs.itertuples():
            share = 0.1 + (run.val_accuracy - 0.1) * (1 - np.exp(-step / self.time_constant(run.norm, run.seed)))
            rows += [(run.run_id, t, "val", "accuracy", value) for t, value in zip(step, share, strict=True)]
            for name in ("dead_share", "died_share"):
                rows.append((run.run_id, 0, "", name, 0.0))
                rows.append((run.run_id, STEPS, "", name, self.dead(run.norm, run.seed)))
        return pd.DataFrame(rows, columns=["run_id", "step", "split", "metric", "value"]).assign(layer="")


def of(**changes) -> StudyData:
    return replace(Made(), **changes).study()


NODE = {
    "statement": "It is better.", "source": "folklore", "metric": "test_accuracy", "better": "higher",
    "delta": 0.5, "unit": "percentage points", "with": {"norm": "BatchNorm"}, "without": {"norm": "NoNorm"},
}  # fmt: skip
"""The content of a claim's file."""


def contrast_of(d: Sequence[float] | np.ndarray, delta: float = 0.5, min_seeds: int = 10, **fields) -> Contrast:
    """A contrast with these differences."""
    claim = claim_of({**NODE, "delta": delta, "min_seeds": min_seeds}, "c")
    case = Case("MLP", "Digits", "", ("BatchNorm",), ("NoNorm",))
    return Contrast(claim, case, "best_rate", d=pd.Series(d, dtype=float), **fields)
