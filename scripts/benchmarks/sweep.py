"""`benchmark.py sweep`: the time and memory of whole commands against plain loops and JAX, with targets."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.digits import digits
from benchmarks.networks import convolutions, mnist
from benchmarks.single import single
from benchmarks.studies import large, packed, planning, quickstart, recording, report
from benchmarks.table import Row, processor, table
from benchmarks.workload import Workload

CORES = 2
GROUPS: dict[str, Callable[[Workload], list[Row]]] = {
    "digits": digits,
    "planning": planning,
    "single": single,
    "convolutions": convolutions,
    "mnist": mnist,
    "large": large,
    "recording": recording,
    "quickstart": quickstart,
    "packed": packed,
    "report": report,
}
DEFAULT = [name for name in GROUPS if name not in ("packed", "report")]
"""All but those that take minutes."""


def measure_sweep(options: argparse.Namespace) -> dict[str, Any]:
    """Print the table and return its rows."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    machine = {"cores": len(os.sched_getaffinity(0)), "processor": processor(), "python": platform.python_version()}
    root = "data.root=" + str(Path(options.root.removeprefix("data.root=")).absolute())
    rows: dict[str, list[Row]] = {}
    begin = time.monotonic()
    for name in options.only:
        with TemporaryDirectory() as folder:
            work = Workload(Path(folder), root, options.repeats, options.try_out, begin)
            try:
                rows[name] = GROUPS[name](work)
            except SystemExit as failure:  # the other groups are still measured
                print(failure, file=sys.stderr)
                rows[name] = [Row(name, "failed: see above", ok=False)]
    print(f"torch {torch.__version__}, {machine['cores']} cores ({machine['processor']})")
    print(table([row for of_name in rows.values() for row in of_name]))
    return {"machine": machine, "rows": {name: [asdict(row) for row in of_name] for name, of_name in rows.items()}}
