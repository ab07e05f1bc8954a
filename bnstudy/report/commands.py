"""The command line that makes a report."""

from __future__ import annotations

import re
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
    # `bnstudy-report` itself quotes the names of arms for Hydra.
    words += [f"compare={compare}"] if compare is not None else []
    words += [f"runs={','.join(sorted({*picked}))}"] if picked else []
    words += [f"study={for_hydra(str(study))}"] if study is not None else []
    words += [f"scale={for_hydra(str(scale))}"] if scale is not None else []
    words += [f"results_dir={for_hydra(str(results_dir))}"] if Path(results_dir) != RESULTS_DIR else []
    words += [f"claims={for_hydra(str(folder))}" for folder in claim_dirs]
    return shlex.join(["bnstudy-report", *words])


def for_hydra(text: str) -> str:
    """Quote a value for Hydra, unless it contains only words and the characters of paths."""
    if re.fullmatch(r"[\w./+-]+( [\w./+-]+)*", text, re.ASCII):
        return text
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"
