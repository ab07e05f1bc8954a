"""The summary of a run, and the number of it that an optimizing sweeper, such as Optuna's, receives."""

from __future__ import annotations

import math
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

import bnstudy
from bnstudy.run import RunSpec
from bnstudy.store.bits import pack_bits
from bnstudy.store.outcomes import accuracy_of_guessing
from bnstudy.sweep.plan import Stack
from bnstudy.train.loop import Training
from bnstudy.train.record import Outcome


def summarize(training: Training, spec: RunSpec, outcome: Outcome, stack: Stack) -> dict[str, Any]:
    """The content of a run's summary.json."""
    data, device = training.dataset, training.device
    sizes = {split: len(getattr(data, split).y) for split in ("train", "val", "test")}
    return {
        "run_id": spec.run_id,
        "status": outcome.status,
        "learned": outcome.learned,
        "diverged_step": outcome.diverged_step,
        "diverged_because": outcome.diverged_because,
        "stopped_step": outcome.stopped_step,
        "steps": training.total,
        "final": drop_nonfinite(outcome.final),
        "best": drop_nonfinite(outcome.best),
        "evaluation_batch": spec.evaluation.batch_size,
        "test_correct": None if outcome.test_correct is None else pack_bits(outcome.test_correct),
        "engine": training.name,
        "not_stacked_because": (training.name == "serial" and stack.method.reason) or None,
        "stack_size": len(stack.runs),
        "compiled": stack.method.compiled,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "seconds": outcome.seconds,
        "probe_seconds": outcome.probe_seconds,
        "probes_cannot_see": list(training.probing.seen.unseen),
        "versions": {
            "bnstudy": bnstudy.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "git_commit": git_commit(),
        "dataset": {
            "name": data.name,
            "checksum": data.checksum,
            "classes": data.classes if data.is_labelled else None,
            "guessing": {**data.guessing, **drop_nonfinite({"loss": training.record.guessing})},
            **sizes,
        },
    }


def drop_nonfinite(values: dict[str, float]) -> dict[str, float | None]:
    """Replace numbers that are not finite by None, since JSON has no NaN."""
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


@cache
def git_commit() -> str | None:
    """The commit of the checkout that the package runs from, with "+" if there are changes; None if it is installed."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changes.stdout.strip() else "")


def objective(summary: Mapping[str, Any], key: str) -> float:
    """The number of a summary with the dotted name `key`; never NaN, which optimizers refuse.

    An accuracy is that of guessing, or 0 for a regression, if the run diverged or did not learn, or if the number was
    not measured. Any other number is infinite if the run diverged, or the number was not measured or is not finite.
    """
    part, name = key.split(".")
    value, diverged = summary[part][name], summary["status"] == "diverged"
    is_accuracy = name.endswith("accuracy")
    if value is not None and not diverged and not (is_accuracy and summary["learned"] is False):
        return float(value)
    return accuracy_of_guessing(summary, name.partition("_")[0]) or 0.0 if is_accuracy else math.inf
