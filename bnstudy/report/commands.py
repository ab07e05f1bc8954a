"""The command line that makes a report."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable
from pathlib import Path

RESULTS_DIR = Path("results")
"""The default of `results_dir`."""


def report_command(
    results_dir: Path | str,
    study: str | None = None,
    scale: str | None = None,
    picked: Collection[str] = (),
    claim_dirs: Iterable[Path] = (),
    compare: str | None = None,
    config_dirs: Iterable[Path] = (),
) -> str:
    """The shell command, for the current folder; arguments as of `write_report` and `write_comparison`."""
    words = [f"--config-dir={folder}" for folder in config_dirs]
    words += [f"compare={compare}"] if compare is not None else []
    words += [f"runs={','.join(sorted({*picked}))}"] if picked else []
    words += [f"study={study}"] if study is not None else []
    words += [f"scale={scale}"] if scale is not None else []
    words += [f"results_dir={results_dir}"] if Path(results_dir) != RESULTS_DIR else []
    words += [f"claims={folder}" for folder in claim_dirs]
    return shlex.join(["bnstudy-report", *words])
