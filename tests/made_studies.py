"""Small stores of made-up runs of the studies in conf/study, with everything that their probes would measure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from bnstudy.config.build import build_request
from bnstudy.config.compose import compose_sweep
from bnstudy.run import RunSpec
from bnstudy.store.bits import pack_bits
from bnstudy.store.files import conf_dir
from bnstudy.store.plans import Plans
from bnstudy.store.runs import METRICS_SCHEMA, TIMING_SCHEMA, Store
from bnstudy.validation import to_dict
from tests.config.test_compose import master_of

STUDIES = sorted({path.stem for path in (conf_dir() / "study").glob("*.yaml")} - {"all"})
SEEDS, RATES = "0,1", "0.0316,0.316,3.16"
LAYERS, ALL, HIDDEN, NETWORK = "layers", "all", "hidden", "network"
"""Where a probe measures: in all layers, also in the whole network, in the hidden layers, in the network alone."""
MEASURED: dict[str, dict[str, str]] = {
    "gradients": {"grad_norm": ALL, "grad_weight_product": ALL},
    "weights": {"weight_norm": ALL, "update_ratio": ALL, "init_distance": ALL},
    "backprop": {"backprop_rms": HIDDEN, "backprop_ratio": NETWORK, "backprop_slope": NETWORK},
    "dead_units": dict.fromkeys(("dead_share", "born_dead_share", "died_share", "revived_share"), ALL)
    | {"network_dead": NETWORK},
    "activations": dict.fromkeys(
        ("z_mean", "z_std", "z_q15", "z_q50", "z_q85", "unit_q15", "unit_q50", "unit_q85", "effective_rank", "z_drift"),
        LAYERS,
    )
    | {"saturated_share": HIDDEN, "z_drift_relative": LAYERS},
    "covariate_shift": dict.fromkeys(("ics_norm", "ics_relative", "ics_cosine"), LAYERS),
    "landscape": dict.fromkeys(
        [f"{name}{kind}" for kind in ("", "_scaled") for name in ("loss_min", "loss_max", "grad_change_min",
         "grad_change_max", "beta_eff")], NETWORK,
    ),
    "norm_internals": dict.fromkeys(
        [f"{name}_{kind}" for name in ("loss", "accuracy") for kind in ("running", "batch", "precise")], NETWORK
    )
    | dict.fromkeys(("gamma_mean", "beta_mean", "effective_lr"), HIDDEN),
    "sharpness": dict.fromkeys(("sharpness", "sharpness_residual", "lr_sharpness", "sharpness_magnitude"), NETWORK),
    "training_fit": {"train_loss": NETWORK, "train_accuracy": NETWORK},
}  # fmt: skip
SHARES = ("share", "dead", "accuracy", "cosine", "relative")


def write_study(results_dir: Path, name: str) -> None:
    """Plan a study at scale=quick with few seeds and learning rates, and finish its runs."""
    node = yaml.safe_load((conf_dir() / "study" / f"{name}.yaml").read_text())
    sweep = node.get("study", node)
    rates = [f"lr={RATES}"] if "," in str(sweep.get("sweep", {}).get("lr", ",")) else []
    words = (f"study={name}", "scale=quick", f"seed={SEEDS}", *rates)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        specs = [run.spec for run in build_request(compose_sweep(loader, master_of(loader, *words[:2]), words)).runs]
    store, ids = Store(results_dir), []
    for spec in {spec.run_id: spec for spec in specs}.values():
        store.begin(spec.run_id, to_dict(spec))
        store.finish(spec.run_id, *measure(spec))
        ids.append(spec.run_id)
    study = {"name": name, "title": sweep["title"], "claims": sweep.get("claims", [])}
    Plans(results_dir).add(study, "quick", f"bnstudy study={name}", ids)


def measure(spec: RunSpec) -> tuple[pa.Table, pa.Table, dict[str, Any]]:
    """The arguments of `Store.finish`: metrics, timing and summary. Networks without a norm diverge at large rates."""
    rng = np.random.default_rng([spec.seed, *spec.run_id.encode()])
    plain, classifies = type(spec.norm).__name__ == "NoNorm", type(spec.loss).__name__ != "MSE"
    total = spec.steps or 60
    diverged_at = max(1, total // 3) if plain and spec.lr > 1 else None
    last = total if diverged_at is None else diverged_at
    evaluated = np.array([step for step in spec.evaluation.when.resolve(total) if step <= last])
    learned = 1 - np.exp(-(5 if plain else 8) * evaluated / total)
    top = 0.97 - 0.03 * plain - 0.04 * np.log10(max(spec.lr, 1e-3) / 0.3) ** 2 + 0.005 * rng.standard_normal()
    steps = np.arange(min(last + 1, total))
    loss = np.exp(0.1 * rng.standard_normal(len(steps))) * (0.1 + 2.2 * np.exp(-6 * steps / total))
    rows = [(steps, "train", "loss", "", loss if diverged_at is None else np.append(loss[:-1], np.nan))]
    final: dict[str, float | None] = {"train_loss": float(loss[-1])}
    for split in ("val", "test"):
        accuracy = 0.1 + (top - 0.1) * learned
        rows.append((evaluated, split, "loss", "", 2.3 * (1 - 0.9 * learned)))
        rows += [(evaluated, split, "accuracy", "", accuracy)] if classifies else []
        final |= {f"{split}_loss": 0.2, f"{split}_accuracy": float(accuracy[-1]) if classifies else None}
    rows.append((evaluated, "", "lr", "", np.full(len(evaluated), spec.lr)))
    for name, probe in spec.probe.items():
        at = np.array([step for step in probe.when.resolve(total) if step <= last])
        if len(at):
            rows += _probed(name, spec, at, rng, 0.4 if plain else 0.1)
    seconds = evaluated * (0.002 if plain else 0.003)
    dataset = {
        "name": type(spec.data).__name__,
        "checksum": "00",
        "train": spec.data.train_size or 1150,
        "val": 287,
        "test": 360,
    }
    summary: dict[str, Any] = {
        "run_id": spec.run_id, "status": "diverged" if diverged_at else "finished", "steps": total,
        "diverged_step": diverged_at, "diverged_because": "training loss nan" if diverged_at else None,
        "final": final, "best": {"step": int(evaluated[-1]), **{k: v for k, v in final.items() if "train" not in k}},
        "engine": "stacked", "stack_size": 8, "device": "cpu", "threads": 1, "git_commit": None,
        "seconds": {"total": 1.0, "training": 0.7, "evaluation": 0.1, "probes": 0.1},
        "versions": {"bnstudy": "0.1.0", "python": "3.12.3", "torch": "2.15.0"},
        "dataset": {**dataset, "classes": 10 if classifies else None},
    }  # fmt: skip
    if classifies and diverged_at is None:
        summary["test_correct"] = pack_bits(rng.permutation(360) < round(360 * (final["test_accuracy"] or 0)))
    timing = {"step": evaluated, "seconds": seconds, "step_seconds": np.full(len(evaluated), 0.002)}
    return _table(rows), pa.table(timing).cast(TIMING_SCHEMA), summary


Row = tuple[np.ndarray, str, str, str, np.ndarray]


def _probed(name: str, spec: RunSpec, at: np.ndarray, rng: np.random.Generator, slope: float) -> list[Row]:
    hidden = [f"hidden{i + 1}" for i in range(getattr(spec.model, "depth", 3))]
    places = {LAYERS: [*hidden, "out"], ALL: ["", *hidden, "out"], HIDDEN: hidden, NETWORK: [""]}
    rows = []
    for metric, where in MEASURED[name].items():
        for i, layer in enumerate(places[where]):
            values = np.exp(0.2 * rng.standard_normal(len(at)) - slope * i) * (1 + at / at.max() if at.max() else 1)
            is_share = any(word in metric for word in SHARES)
            rows.append((at, "", metric, layer, np.minimum(1, values / 4) if is_share else values))
    return rows


def _table(rows: list[Row]) -> pa.Table:
    steps, *texts, values = zip(*rows, strict=True)
    lengths, step = [*map(len, steps)], np.concatenate(steps)
    named = zip(("split", "metric", "layer"), texts, strict=True)
    encoded = {name: pa.array(np.repeat(text, lengths)).dictionary_encode() for name, text in named}
    return pa.table({"step": step, "epoch": step / 18, **encoded, "value": np.concatenate(values)}).cast(METRICS_SCHEMA)
