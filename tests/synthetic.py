"""Stores of made-up runs that look like real ones: what a report needs, without training anything."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bnstudy.claims.frames import StudyData, load_study
from bnstudy.store.bits import pack_bits
from bnstudy.store.identity import run_id_of
from bnstudy.store.plans import Plans
from bnstudy.store.runs import Store

NORMS: dict[str, dict[str, Any]] = {
    "NoNorm": {"_target_": "bnstudy.norms.none.NoNorm", "position": "before"},
    "BatchNorm": {
        "_target_": "bnstudy.norms.batch.BatchNorm", "position": "before", "affine": True, "eps": 1e-05,
        "momentum": 0.1, "track_running_stats": True,
    },
    "LayerNorm": {"_target_": "bnstudy.norms.group.LayerNorm", "position": "before", "affine": True, "eps": 1e-05},
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "MLP": {"_target_": "bnstudy.models.mlp.MLP", "depth": 3, "width": 128, "activation": "relu"},
    "VGG": {"_target_": "bnstudy.models.vgg.VGG", "depth": 11, "width": 16, "activation": "relu"},
}
LAYERS = {
    "MLP": ["hidden1", "hidden2", "hidden3", "out"],
    "VGG": [f"conv{i}" for i in range(1, 11)] + ["out"],
}
DATA: dict[str, dict[str, Any]] = {
    "Digits": {"_target_": "bnstudy.data.digits.Digits", "train_size": None, "val_fraction": 0.2, "augment": "none"},
    "MNIST": {"_target_": "bnstudy.data.mnist.MNIST", "train_size": None, "val_fraction": 0.1, "augment": "none"},
}
Row = tuple[np.ndarray, str, str, str, np.ndarray]
"""Steps, split, metric, layer, values."""
COARSE_RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
FINE_RATES = (0.0178, 0.0316, 0.0562, 0.1, 0.178, 0.316, 0.562, 1.0, 1.78)
"""10^(1/4) apart, as a claim at best rates needs around them."""
CHANCE = 0.1
PEAK = {"NoNorm": (0.1, 0.93), "BatchNorm": (0.4, 0.965), "LayerNorm": (0.2, 0.95)}
"""Where a norm's made-up accuracy is highest, and how high."""


@dataclass(frozen=True)
class Run:
    """One made-up run; equal fields make equal files. diverged_at: a step, or None. fields: of the spec, dotted."""

    norm: str = "NoNorm"
    lr: float = 0.1
    seed: int = 0
    model: str = "MLP"
    data: str = "Digits"
    total: int = 400
    batch_size: int = 64
    norm_fields: tuple[tuple[str, Any], ...] = ()
    gain: float = 1.0
    diverged_at: int | None = None
    accuracy: float | None = None
    val_accuracy: float | None = None
    dead: bool = True
    fields: tuple[tuple[str, Any], ...] = ()
    probed: str = "gradients"
    engine: str = "serial"

    @property
    def spec(self) -> dict[str, Any]:
        spec = self._spec()
        for key, value in self.fields:
            group, _, name = key.rpartition(".")
            spec |= {group: {**spec[group], name: value}} if group else {name: value}
        return spec

    def _spec(self) -> dict[str, Any]:
        return {
            "model": MODELS[self.model],
            "norm": {**NORMS.get(self.norm, {"_target_": f"mine.{self.norm}"}), **dict(self.norm_fields)},
            "init": {"_target_": "bnstudy.inits.KaimingNormal", "gain": self.gain},
            "data": DATA.get(self.data, {**DATA["Digits"], "name": self.data}),
            "optim": {"_target_": "bnstudy.optim.SGD", "momentum": 0.9, "nesterov": False, "weight_decay": 0.0},
            "schedule": {"_target_": "bnstudy.optim.Constant", "warmup": 0},
            "probe": {self.probed: {"_target_": "bnstudy.probes.gradients.Gradients"}},
            "evaluation": {"_target_": "bnstudy.when.LogThenRegular", "early": 10, "regular": 20},
            "lr": self.lr, "batch_size": self.batch_size, "seed": self.seed, "epochs": None, "steps": self.total,
            "precision": "fp32",
        }  # fmt: skip

    @property
    def run_id(self) -> str:
        return run_id_of(self.spec)


def write(results_dir: Path, runs: Iterable[Run]) -> list[str]:
    """Finish the runs in the store; returns their ids."""
    store, ids = Store(results_dir), []
    for run in runs:
        store.begin(run.run_id, run.spec)
        store.finish(run.run_id, *_measured(run))
        ids.append(run.run_id)
    return ids


def edit_summary(results_dir: Path, run_id: str, /, **changes: Any) -> None:
    """Change a summary to one of an earlier version, which has no integrity record."""
    path = Store(results_dir).run(run_id).summary
    summary = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in summary.items() if key != "integrity"}))


def plan(
    results_dir: Path, name: str, run_ids: Iterable[str], scale: str = "quick", title: str = "Does it?", claims=()
) -> None:
    study = {"name": name, "title": title, "claims": list(claims)}
    Plans(results_dir).add(study, scale, f"bnstudy study={name} scale={scale}", run_ids)


def study_of(folder: Path, runs: Iterable[Run]) -> StudyData:
    """The data of a report on these runs alone."""
    write(folder, runs)
    return load_study(folder)


def lr_sweep(
    seeds: int = 5,
    total: int = 400,
    norms: tuple[str, ...] = ("NoNorm", "BatchNorm"),
    rates: Sequence[float] = COARSE_RATES,
) -> list[Run]:
    """Digits, an MLP; NoNorm diverges at large learning rates, early or late by seed."""
    grid = itertools.product(norms, rates, range(seeds))
    return [_diverging(Run(norm, lr, seed, total=total)) for norm, lr, seed in grid]


def two_models(seeds: int = 3) -> list[Run]:
    """Two models and three norms at one learning rate; one seed of one arm diverges."""
    grid = itertools.product(("MLP", "VGG"), ("NoNorm", "BatchNorm", "LayerNorm"), range(seeds))
    runs = [Run(norm, 0.1, seed, model=model, data="MNIST") for model, norm, seed in grid]
    return [replace(r, diverged_at=37) if (r.model, r.norm, r.seed) == ("VGG", "NoNorm", 1) else r for r in runs]


def _diverging(run: Run) -> Run:
    limit = {"NoNorm": 0.5, "LayerNorm": 3.0}.get(run.norm, 9.0)
    if run.lr <= limit * (0.9 if run.seed % 5 == 1 else 1.1):
        return run
    return replace(run, diverged_at=max(1, round(run.total * 0.2 * limit / run.lr * (1 + run.seed % 5) / 5)))


def _measured(run: Run) -> tuple[pa.Table, pa.Table, dict[str, Any]]:
    rng = np.random.default_rng([run.seed, round(run.lr * 1e6), *run.norm.encode(), len(run.model)])
    until = run.total if run.diverged_at is None else run.diverged_at
    peak, top = PEAK.get(run.norm, (0.1, 0.9))
    top = top - 0.05 * np.log10(run.lr / peak) ** 2 + 0.004 * rng.standard_normal()
    top = float(np.clip(top if run.accuracy is None else run.accuracy, CHANCE, 1))
    rate = 12 * min(run.lr / peak, 3) ** 0.7 / run.total
    steps = np.arange(min(until + 1, run.total))
    loss = (2.3 - (1 - top)) * np.exp(-3 * (rate * steps) ** 0.7) + (1 - top) * np.exp(
        0.15 * rng.standard_normal(len(steps))
    )
    if run.diverged_at is not None and run.diverged_at < run.total:
        loss[-1] = np.nan
    early = {round((run.total // 20) ** (i / 9)) for i in range(10)}
    scheduled = np.array(sorted({0, run.total} | early | {round(run.total * i / 20) for i in range(1, 21)}))
    scheduled = scheduled[scheduled <= until]
    rows = [(steps, "train", "loss", "", loss)]
    final: dict[str, float | None] = {"train_loss": _json(loss[-1])}
    for split in ("val", "test"):
        aim = top if split == "test" or run.val_accuracy is None else run.val_accuracy
        share = aim - (aim - CHANCE) * np.exp(-2 * (rate * scheduled) ** 0.8)
        if run.accuracy is None:
            share = np.clip(share + 0.004 * rng.standard_normal(len(share)) * (scheduled > 0), 0, 1)
        share[-1] = aim if run.accuracy is not None and until == run.total else share[-1]
        rows += [(scheduled, split, "accuracy", "", share), (scheduled, split, "loss", "", 2.3 * (1 - share))]
        final |= {f"{split}_accuracy": _json(share[-1]), f"{split}_loss": _json(2.3 * (1 - share[-1]))}
    rows += _layers(run, scheduled, rng)
    seconds = scheduled * (0.0021 if run.norm == "NoNorm" else 0.0027) * (1 + 0.02 * rng.random()) + 0.01 * (
        scheduled > 0
    )
    best = {"val_accuracy": final["val_accuracy"], "step": int(scheduled[-1]), "test_accuracy": final["test_accuracy"]}
    summary = {
        "run_id": run.run_id, "status": "finished" if run.diverged_at is None else "diverged", "steps": run.total,
        "diverged_step": run.diverged_at, "diverged_because": None if run.diverged_at is None else "training loss nan",
        "final": final, "best": best, "engine": run.engine, "stack_size": 1, "device": "cpu", "threads": 2,
        "seconds": {"total": seconds[-1] + 0.2, "training": seconds[-1], "evaluation": 0.1, "probes": 0.1},
        "versions": {"bnstudy": "0.1.0", "python": "3.12.3", "torch": "2.15.0"}, "git_commit": None,
        "dataset": {"name": run.data, "checksum": "00", "train": 1150, "val": 287, "test": 360, "classes": 10},
    }  # fmt: skip
    if run.diverged_at is None:
        summary["test_correct"] = pack_bits(_test_correct(run, final["test_accuracy"]))
    return _table(rows), _timing(scheduled, seconds), summary


def _test_correct(run: Run, accuracy: float | None) -> np.ndarray:
    """Which of the 360 test images the run classifies correctly, as many as its accuracy says."""
    rng = np.random.default_rng([*run.run_id.encode()])
    return rng.permutation(360) < round(360 * (accuracy or 0))


def _layers(run: Run, steps: np.ndarray, rng: np.random.Generator) -> list[Row]:
    names = LAYERS[run.model]
    slope = 1.25 if run.norm == "NoNorm" else 0.95
    rows = []
    for depth, layer in enumerate(names):
        size = 0.3 * slope ** (depth - len(names)) / (1 + 3 * steps / run.total)
        rows.append((steps, "", "grad_norm", layer, size * np.exp(0.2 * rng.standard_normal(len(steps)))))
    if run.dead:
        most = 0.2 if run.norm == "NoNorm" else 0.01
        shares = [
            most * (d + 1) / len(names) * steps / run.total * (1 + 0.2 * rng.random()) for d in range(len(names) - 1)
        ]
        rows += [(steps, "", "dead_share", layer, s) for layer, s in zip(names, shares, strict=False)]
        rows += [(steps, "", name, "", np.mean(shares, axis=0)) for name in ("dead_share", "died_share")]
    return sorted(rows, key=lambda r: r[2])


def _table(rows: list[Row]) -> pa.Table:
    steps, *texts, values = zip(*rows, strict=True)
    lengths, step = [*map(len, steps)], np.concatenate(steps)
    named = zip(("split", "metric", "layer"), texts, strict=True)
    encoded = {name: pa.array(np.repeat(text, lengths)).dictionary_encode() for name, text in named}
    return pa.table({"step": step, "epoch": step / 18, **encoded, "value": np.concatenate(values).astype(float)})


def _timing(steps: np.ndarray, seconds: np.ndarray) -> pa.Table:
    rates = np.diff(seconds, prepend=np.nan) / np.maximum(1, np.diff(steps, prepend=0))
    return pa.table({"step": steps, "seconds": seconds, "step_seconds": rates})


def _json(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
