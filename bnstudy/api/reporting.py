"""Reports from Python: the same files as `bnstudy-report` writes, and an object that shows them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from bnstudy.api.training import ONE_AT_A_TIME
from bnstudy.config.arguments import ReportOptions, parse_report_arguments
from bnstudy.report.compare import write_comparison
from bnstudy.report.notebook import Report
from bnstudy.report.page import Progress, silent
from bnstudy.report.report import write_report
from bnstudy.report.result import ReportResult
from bnstudy.validation import ConfigError


def report(
    study: str | None = None,
    *,
    results_dir: str | Path = "results",
    scale: str | None = None,
    runs: str | Iterable[str] | pd.DataFrame = (),
    compare: str | None = None,
    claims: str | Path | None = None,
    config_dir: str | Path | None = None,
) -> Report:
    """Write a report on what is in a store, and return it.

    `bnstudy.report("quickstart")`, `bnstudy.report(runs=bnstudy.sweep(...))`

    Args:
        study: that was run; "all" for each study in the store; None for every run in it.
        results_dir: where the store is.
        scale: "quick", "standard" or "full"; by default the one that was run last.
        runs: ids of runs, or a frame with a column `run_id`, instead of a study.
        compare: two arms, such as "BatchNorm, lr=1 vs NoNorm, lr=0.1", for a comparison instead of the report.
        claims: a folder of your own claims.
        config_dir: a folder like conf/, with claims and figures of your own.

    Returns:
        The report. A notebook shows it; it has `verdicts`, a frame, `figures` by name, `to_latex()`, `to_markdown()`
        and `index`, the path of the page.

    Raises:
        ConfigError: an argument is not allowed, there are no finished runs, or the report cannot be written.
    """
    picked: Iterable[str] = runs["run_id"] if isinstance(runs, pd.DataFrame) else runs
    ids = list(dict.fromkeys([runs] if isinstance(runs, str) else picked))
    if isinstance(runs, pd.DataFrame) and not ids:
        raise ConfigError("runs is an empty frame: there is nothing to report on.")
    values = {"study": study, "scale": scale, "compare": compare, "claims": claims, "results_dir": results_dir}
    words = [f"{key}={value}" for key, value in values.items() if value is not None]
    words += [f"runs={','.join(ids)}"] if ids else []
    words += [f"--config-dir={config_dir}"] if config_dir else []
    with ONE_AT_A_TIME:
        return Report(write(parse_report_arguments(words)))


def write(options: ReportOptions, progress: Progress = silent) -> ReportResult:
    """Write the report or the comparison that a command line describes."""
    where, about = options.results_dir, (options.study, options.scale, options.runs)
    if options.compare is None:
        return write_report(where, *about, options.claim_dirs, options.config_dirs, progress)
    return write_comparison(where, options.compare, *about)
