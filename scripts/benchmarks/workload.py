"""What all groups of `benchmark.py sweep` share: the amount of work, and the arguments of a sweep."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

NORMS = ("none", "batch")
RATES = ("0.01", "0.02", "0.03", "0.04", "0.06", "0.08", "0.1", "0.15")
"""At these rates no run on digits diverges; a diverged run would end early."""

DIGITS = ("model=mlp", "model.depth=4", "model.width=64", "data=digits", "batch_size=32")
TINY = ("model=mlp", "model.depth=1", "data=digits", "batch_size=32", "steps=1")


@dataclass(frozen=True)
class Workload:
    """Where and how much to measure.

    folder: for stores and caches.
    root: the override of `data.root`, with MNIST in it.
    repeats: of commands that take less than half a minute.
    tiny: a few short runs instead, to test the script.
    """

    folder: Path
    root: str
    repeats: int
    tiny: bool = False
    begin: float = field(default_factory=time.monotonic)

    def few(self, number: int, tiny: int) -> int:
        """A number of runs or steps, or a smaller one to test the script."""
        return tiny if self.tiny else number

    def say(self, what: str) -> None:
        """Print what is measured now, and when."""
        print(f"[{time.monotonic() - self.begin:5.0f} s] {what}", file=sys.stderr, flush=True)


def sweep_arguments(overrides: tuple[str, ...], rates: tuple[str, ...], seeds: int, results: Path) -> list[str]:
    """The arguments of a sweep over norms, learning rates and seeds."""
    choices = [f"norm={','.join(NORMS)}", f"lr={','.join(rates)}", f"seed=range(0,{seeds})"]
    return ["-m", *overrides, *choices, f"results_dir={results}"]
