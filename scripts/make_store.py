"""Write a store of made-up runs without training, to test reports on many runs.

    python scripts/make_store.py --results-dir DIR [--runs 10000] [--rows 2000] [--seeds 60]

The runs are networks with and without batch norm at seven learning rates and several widths of an MLP and a VGG, as
many as are needed for the number of runs. Specs, files and metrics are as in real runs; the values are random: with
batch norm, training is faster, tolerates larger learning rates and kills fewer units. Each of four planned studies has
all runs: `large` at scale=full has all the claims of the three others, which are planned at scale=standard.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bnstudy.data.digits import Digits
from bnstudy.inits import KaimingNormal
from bnstudy.losses import CrossEntropy
from bnstudy.models.base import ModelSpec
from bnstudy.models.mlp import MLP
from bnstudy.models.vgg import VGG
from bnstudy.norms.base import NormSpec
from bnstudy.norms.batch import BatchNorm
from bnstudy.norms.none import NoNorm
from bnstudy.optim import SGD, Constant
from bnstudy.probes.gradients import Backprop, GradientNorm
from bnstudy.probes.units import DeadUnits
from bnstudy.probes.weights import WeightSize
from bnstudy.run import Evaluation, RunSpec
from bnstudy.store.bits import pack_bits
from bnstudy.store.plans import Plans
from bnstudy.store.runs import METRICS_SCHEMA, TIMING_SCHEMA, Store
from bnstudy.validation import to_dict
from bnstudy.when import AtFractions, LogThenRegular

RATES = (0.00316, 0.01, 0.0316, 0.1, 0.316, 1.0, 3.16)
NORMS: tuple[NormSpec, ...] = (NoNorm(), BatchNorm())
MODELS: tuple[ModelSpec, ...] = (
    *(MLP(width=width) for width in (32, 48, 64, 96, 128, 192, 256, 512)),
    *(VGG(depth=8, width=width) for width in (0.125, 0.25, 0.375, 0.5)),
)
CLAIMS = {
    "convergence": ["faster_convergence"],
    "dead_relu": ["dead_relus"],
    "lr_tolerance": ["higher_learning_rates", "wider_learning_rates", "higher_best_rate"],
}
ALL_CLAIMS = [*itertools.chain(*CLAIMS.values()), "gradient_flow"]
CLASSES, CHANCE = 10, 0.1
BATCHES_PER_EPOCH = 18

OFTEN, RARELY = LogThenRegular(early=4, regular=8), AtFractions((0.0, 1.0))
PROBES = {
    "backprop": Backprop(when=RARELY),
    "dead_units": DeadUnits(when=RARELY),
    "gradients": GradientNorm(when=OFTEN),
    "weights": WeightSize(when=OFTEN),
}
UNITS = ("dead_share", "born_dead_share", "died_share", "revived_share")
SIZES = ("grad_norm", "grad_weight_product", "weight_norm", "update_ratio", "init_distance")


@dataclass(frozen=True)
class MadeUpRun:
    """A run and its outcome. total: its steps; top: its final accuracy."""

    spec: RunSpec
    total: int
    diverged_at: int | None
    top: float

    @property
    def last_step(self) -> int:
        return self.total if self.diverged_at is None else self.diverged_at

    @property
    def is_normalized(self) -> bool:
        return not isinstance(self.spec.norm, NoNorm)


@dataclass(frozen=True)
class Block:
    """Rows of one metric and layer. depth: the layer's relative depth, from 0 to 1."""

    steps: np.ndarray
    split: str
    metric: str
    layer: str
    depth: float = 0.0


def make_run(spec: RunSpec, total: int) -> MadeUpRun:
    """A run that diverges above a learning rate that depends on the norm and slightly on the seed."""
    is_none = isinstance(spec.norm, NoNorm)
    rng = np.random.default_rng([spec.seed, round(1e6 * spec.lr), int(is_none)])
    best, top, limit = (0.1, 0.93, 1.0) if is_none else (0.316, 0.965, 10.0)
    top -= 0.05 * np.log10(spec.lr / best) ** 2 + 0.004 * rng.standard_normal()
    diverged = spec.lr > limit * (0.9 if spec.seed % 9 == 1 else 1.1)
    return MadeUpRun(spec, total, int(rng.integers(2, 60)) if diverged else None, float(np.clip(top, CHANCE, 1)))


def all_specs(seeds: int, steps: int) -> Iterator[RunSpec]:
    """All specs, seed by seed, so that all arms have about the same number among the first ones."""
    for seed, model, norm, lr in itertools.product(range(seeds), MODELS, NORMS, RATES):
        yield RunSpec(
            model=model, norm=norm, init=KaimingNormal(), data=Digits(val_fraction=0.2), optim=SGD(),
            schedule=Constant(), loss=CrossEntropy(), probe=PROBES,
            evaluation=Evaluation(when=LogThenRegular(early=6, regular=12)), lr=lr, batch_size=64, seed=seed,
            steps=steps,
        )  # fmt: skip


def choose_specs(runs: int, seeds: int, steps: int) -> list[RunSpec]:
    """The specs of `runs` runs, with as few models as give each arm about `seeds` seeds."""
    settings = -(-runs // (seeds * len(NORMS) * len(RATES)))
    models = MODELS[:: -(-len(MODELS) // settings)] if settings < len(MODELS) else MODELS
    n_seeds = -(-runs // (len(models) * len(NORMS) * len(RATES)))
    return list(itertools.islice((s for s in all_specs(n_seeds, steps) if s.model in models), runs))


def layer_names(model: ModelSpec) -> tuple[str, ...]:
    hidden = [f"hidden{i}" for i in range(1, 4)] if isinstance(model, MLP) else [f"conv{i}" for i in range(1, 7)]
    return (*hidden, "out")


@cache
def make_blocks(layers: tuple[str, ...], total: int, last: int) -> list[Block]:
    """All rows without their values, which runs of the same length share."""
    steps = np.arange(min(last + 1, total))
    evaluated, often, rarely = (
        np.array([step for step in when.resolve(total) if step <= last])
        for when in (LogThenRegular(early=6, regular=12), OFTEN, RARELY)
    )
    depths = dict(zip(layers, np.linspace(0, 1, len(layers)), strict=True))
    blocks = [Block(steps, "train", "loss", "")]
    blocks += [Block(evaluated, split, metric, "") for split in ("val", "test") for metric in ("loss", "accuracy")]
    blocks += [Block(evaluated, "", "lr", "")]
    blocks += [Block(often, "", m, name, depth) for m in SIZES for name, depth in {"": 0.0, **depths}.items()]
    blocks += [Block(rarely, "", "backprop_rms", name, depth) for name, depth in list(depths.items())[:-1]]
    blocks += [Block(rarely, "", metric, "") for metric in ("backprop_ratio", "backprop_slope")]
    hidden = {"": 0.5, **dict(list(depths.items())[:-1])}
    return [*blocks, *(Block(rarely, "", m, name, depth) for m in UNITS for name, depth in hidden.items())]


@cache
def make_columns(layers: tuple[str, ...], total: int, last: int) -> dict[str, pa.Array]:
    """The rows of `make_blocks` as columns, without values."""
    blocks = make_blocks(layers, total, last)
    lengths = [len(block.steps) for block in blocks]
    step = np.concatenate([block.steps for block in blocks])
    texts = {name: [getattr(block, name) for block in blocks] for name in ("split", "metric", "layer")}
    encoded = {name: pa.array(np.repeat(values, lengths)).dictionary_encode() for name, values in texts.items()}
    return {"step": pa.array(step), "epoch": pa.array(step / BATCHES_PER_EPOCH), **encoded}


def draw_values(run: MadeUpRun, block: Block, rng: np.random.Generator) -> np.ndarray:
    steps, noise = block.steps, rng.standard_normal(len(block.steps))
    rate = (30.0 if run.is_normalized else 12.0) * min(1.0, run.spec.lr / 0.1) ** 0.5 / run.total
    learned = 1 - np.exp(-((rate * steps) ** 0.8))
    if block.metric == "accuracy":
        return np.clip(CHANCE + (run.top - CHANCE) * learned + 0.004 * noise * (steps > 0), 0, 1)
    if block.metric == "loss":
        loss = np.exp(0.1 * noise) * (2.3 - (2.3 - 2 * (1 - run.top)) * learned)
        return loss if run.diverged_at is None or block.split != "train" else np.append(loss[:-1], np.nan)
    if block.metric in UNITS:
        most = (0.02 if run.is_normalized else 0.25) * (1 + np.log10(run.spec.lr) / 4)
        return np.abs(most * (0.5 + block.depth) * (1 + 0.1 * noise) * (steps > 0))
    if block.metric == "backprop_slope":
        return (-0.05 if run.is_normalized else -0.25) + 0.02 * noise
    slope = 0.1 if run.is_normalized else 0.5
    return run.spec.lr if block.metric == "lr" else np.exp(0.2 * noise - slope * block.depth) / (1 + rate * steps)


def measure(run: MadeUpRun) -> tuple[pa.Table, pa.Table, dict[str, Any]]:
    """The arguments of `Store.finish`: metrics, timing and summary."""
    spec = run.spec
    shape = layer_names(spec.model), run.total, run.last_step
    blocks = make_blocks(*shape)
    rng = np.random.default_rng([spec.seed, round(1e6 * spec.lr), run.is_normalized, *repr(spec.model).encode()])
    values = [np.broadcast_to(draw_values(run, block, rng), len(block.steps)) for block in blocks]
    final = {
        f"{b.split}_{b.metric}": float(v[-1])
        for b, v in zip(blocks, values, strict=True)
        if b.split and np.isfinite(v[-1])
    }
    evaluated = blocks[1].steps
    seconds = evaluated * (0.0021 if run.is_normalized else 0.0016) * (1 + 0.02 * rng.random())
    rates = np.diff(seconds, prepend=np.nan) / np.maximum(1, np.diff(evaluated, prepend=0))
    best = {"step": int(evaluated[-1]), **{key: final[key] for key in ("val_accuracy", "test_accuracy")}}
    summary: dict[str, Any] = {
        "run_id": spec.run_id, "status": "finished" if run.diverged_at is None else "diverged", "steps": run.total,
        "diverged_step": run.diverged_at, "diverged_because": None if run.diverged_at is None else "training loss nan",
        "final": {"train_loss": None, **final}, "best": best, "engine": "stacked", "stack_size": 32, "compiled": True,
        "device": "cpu", "threads": 1, "git_commit": None, "probe_seconds": dict.fromkeys(PROBES, 0.02),
        "seconds": {
            "total": seconds[-1] + 0.3, "training": seconds[-1], "evaluation": 0.1, "probes": 0.08, "starting": 0.1
        },
        "versions": {"bnstudy": "0.1.0", "python": "3.11.7", "torch": "2.15.0"},
        "dataset": {
            "name": "Digits", "checksum": "", "train": 1150, "val": 288, "test": 359, "classes": CLASSES
        },
    }  # fmt: skip
    if run.diverged_at is None:
        images = summary["dataset"]["test"]
        summary["test_correct"] = pack_bits(rng.permutation(images) < round(images * final["test_accuracy"]))
    metrics = pa.table({**make_columns(*shape), "value": np.concatenate(values)}).cast(METRICS_SCHEMA)
    timing = {"step": evaluated, "seconds": seconds, "step_seconds": rates}
    return metrics, pa.table(timing).cast(TIMING_SCHEMA), summary


def write_runs(results_dir: Path, specs: Sequence[RunSpec]) -> int:
    """Write finished runs; returns the number of metric rows."""
    store, rows = Store(results_dir), 0
    for spec in specs:
        metrics, timing, summary = measure(make_run(spec, spec.steps or 0))
        store.begin(spec.run_id, to_dict(spec))
        store.finish(spec.run_id, metrics, timing, summary)
        rows += metrics.num_rows
    return rows


def make_store(results_dir: Path, runs: int, rows: int, seeds: int) -> int:
    """Write the runs and plan the studies; returns the number of metric rows.

    rows: of a run of the MLP that does not diverge; the run has enough steps, and so training losses, for them.
    """
    others = sum(len(block.steps) for block in make_blocks(layer_names(MODELS[0]), rows, rows)[1:])
    specs = choose_specs(runs, seeds, max(50, rows - others))
    parts = [specs[i : i + 100] for i in range(0, len(specs), 100)]
    if len(parts) > 1:
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            total = sum(pool.map(partial(write_runs, results_dir), parts))
    else:
        total = sum(write_runs(results_dir, part) for part in parts)
    ids = [spec.run_id for spec in specs]
    for name, scale, claims in [("large", "full", ALL_CLAIMS), *((n, "standard", c) for n, c in CLAIMS.items())]:
        study = {"name": name, "title": f"Made up: {name.replace('_', ' ')}", "claims": claims}
        Plans(results_dir).add(study, scale, f"bnstudy study={name} scale={scale}", ids)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results-dir", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=2_000, help="metric rows of a run that does not diverge")
    parser.add_argument("--seeds", type=int, default=60, help="about the seeds of each arm")
    options = parser.parse_args()
    begin = time.monotonic()
    rows = make_store(options.results_dir, options.runs, options.rows, options.seeds)
    print(f"{options.runs} runs, {rows:,} rows of metrics, in {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
