"""The report on one study or several: a self-contained page, the same in Markdown, figures, and tables."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from bnstudy.report.all_studies import EVERY_STUDY, write_index
from bnstudy.report.page import Progress, silent
from bnstudy.report.result import ReportResult
from bnstudy.report.study_report import Folders, write_study_report

__all__ = ["EVERY_STUDY", "write_report"]


def write_report(
    results_dir: Path,
    study: str | None = None,
    scale: str | None = None,
    picked: Collection[str] = (),
    claim_dirs: Sequence[Path] = (),
    config_dirs: Sequence[Path] = (),
    progress: Progress = silent,
) -> ReportResult:
    """Write `<results_dir>/reports/<study>/`; the same store gives the same bytes.

    Args:
        study: a name; `all` for the report of every study in the store and an index of them, in
            `reports/all-studies/`; None for every run of the store, in `reports/all/`.
        scale: of the study, by default the one planned last.
        picked: ids of runs, for a report on these alone, in `reports/runs-<ids>/`.
        claim_dirs: folders with claims of the user's own.
        config_dirs: folders with `claim/`, `figure/` and `reproduction/` of the user's own.
        progress: is told what is drawn next.

    Raises:
        ConfigError: as `load_study` and `load_claims`; or the report cannot be written.
    """
    folders = Folders(results_dir, claim_dirs, config_dirs)
    if study == EVERY_STUDY and not picked:
        return write_index(folders, scale, progress)
    return write_study_report(folders, study, scale, picked, progress).result
