"""The report on one study, on the runs picked by hand, or on every run of a store."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnstudy.claims import verdicts
from bnstudy.claims.changed_plans import find_changes, mark_reported
from bnstudy.claims.claim import Claim, describe_renamed, load_claims
from bnstudy.claims.contrasts import Contrast, contrasts
from bnstudy.claims.frames import StudyData, load_study
from bnstudy.claims.possible_claims import possible_contrasts
from bnstudy.claims.verdicts import Verdict
from bnstudy.report import wording
from bnstudy.report.cards import claim_cards, claim_id
from bnstudy.report.commands import report_command
from bnstudy.report.figure_files import Figures
from bnstudy.report.forest import forest_of
from bnstudy.report.page import Progress, StudyPart, part_of, silent
from bnstudy.report.provenance import provenance
from bnstudy.report.rendering import publish
from bnstudy.report.result import ReportResult
from bnstudy.report.tables import as_csv, verdict_files
from bnstudy.report.wording import count_statuses
from bnstudy.store.packed import open_store
from bnstudy.store.plans import Plans

MANY = 6
"""With more cases than these, the page counts verdicts."""


@dataclass(frozen=True)
class Folders:
    """Where the runs are, and the user's own claims, figures and reproductions."""

    results: Path
    claims: Sequence[Path] = ()
    configs: Sequence[Path] = ()

    @property
    def of_claims(self) -> list[Path]:
        return [*self.claims, *(folder / "claim" for folder in self.configs)]

    def command(self, study: str | None, scale: str | None, picked: Collection[str] = ()) -> str:
        """The command that draws a report from these folders."""
        return report_command(self.results, study, scale, picked, self.claims, config_dirs=self.configs)


@dataclass(frozen=True)
class JudgedStudy:
    """A study and the verdicts on its claims. changes: of the plan since an earlier report."""

    part: StudyPart
    found: Sequence[Verdict]
    changes: list[str]


@dataclass(frozen=True)
class StudyReport(JudgedStudy):
    """A written report, and what it is about, without its figures."""

    result: ReportResult


def write_study_report(
    folders: Folders,
    study: str | None = None,
    scale: str | None = None,
    picked: Collection[str] = (),
    progress: Progress = silent,
) -> StudyReport:
    """Write `<results_dir>/reports/<name>/`; arguments and errors as of `report.write_report`."""
    progress("runs")
    store = open_store(folders.results)
    about = load_study(store, study, scale, picked)
    limits = Plans(folders.results).damaged(about.name) if study else []
    if study or picked:
        found, changes = contrasts_of(about, load_claims(about.claims, folders.of_claims)), find_changes(store, about)
        limits += describe_renamed(about.claims, folders.of_claims)
    else:
        found, limits = possible_contrasts(about, folders.of_claims)
        changes = []
    again = folders.command(study, about.scale if study else None, picked)
    taken = set[str]()
    part = part_of(about, taken, again, folders.configs, progress, found)
    judged = verdicts.judge_all(sorted(found, key=lambda contrast: contrast.claim.order))
    result = _publish(folders.results, part, judged, [*part.cautions, *limits, *changes], taken, progress)
    mark_reported(store, about)
    return StudyReport(part.without_panel_images(), judged, changes, result)


def judge_study(folders: Folders, study: str, scale: str | None = None, progress: Progress = silent) -> JudgedStudy:
    """The verdicts of a study, with the figure of the result that it reproduces and no others; nothing is written.

    Errors as of `write_report`.
    """
    about = load_study(folders.results, study, scale)
    found = contrasts_of(about, load_claims(about.claims, folders.of_claims))
    part = part_of(about, set(), folders.command(study, about.scale), folders.configs, progress, figures={})
    changes = find_changes(open_store(folders.results), about)
    return JudgedStudy(part.without_panel_images(), verdicts.judge_all(found), changes)


def contrasts_of(study: StudyData, claims: Sequence[Claim]) -> list[Contrast]:
    return [contrast for claim in claims for contrast in contrasts(study, claim)]


def _publish(
    results_dir: Path, part: StudyPart, found: Sequence[Verdict], cautions: Sequence[str], taken: set[str],
    progress: Progress,
) -> ReportResult:  # fmt: skip
    study = part.study
    progress("effects")
    cards = claim_cards(found, part, taken)
    images = [card.effect for card in cards] + part.images
    files = {"runs.csv": as_csv(study.runs), **verdict_files(found)}
    content = page_content(part, found, cautions) | {"claims": cards}
    content["in_claims"] = {image.name for card in cards for image in card.images}
    index = publish(results_dir, study.name, "index", content, images, files)
    return ReportResult(
        folder=index.parent,
        index=index,
        verdicts=tuple(verdict.sentence for verdict in found),
        findings=tuple(part.findings),
        cautions=tuple(cautions),
        diverged=int(study.runs["diverged"].sum()),
        missing=study.n_missing,
        found=tuple(found),
        title=study.title,
        answer=content["answer"],
        figures=Figures(index.parent / "figures", images),
    )


def page_content(part: StudyPart, found: Sequence[Verdict], cautions: Sequence[str]) -> dict[str, Any]:
    """What the templates read, beside the cards and their figures."""
    study, primary = part.study, [verdict for verdict in found if verdict.contrast.is_primary]
    return {
        "name": study.name, "title": study.title, "scale": study.scale, "report": part.report, "one": part,
        "facts": part.facts, "cautions": list(cautions), "tally": tally_cases(primary),
        "answer": wording.answer(found, study.title) if primary else answer_of_reproduction(part),
        "forest": forest_of(primary, lambda v: f"#{claim_id(v.contrast.claim)}") if primary else None,
        "provenance": provenance(study.runs, len(study.planned), study.is_thin),
    }  # fmt: skip


def answer_of_reproduction(part: StudyPart) -> str:
    """How many published values are met; empty for a study that reproduces nothing."""
    return next(iter(part.findings), "") if part.reproduction else ""


def tally_cases(primary: Sequence[Verdict]) -> str:
    """`"3 claims, 18 cases: SUPPORTED in 12, INCONCLUSIVE in 6."`; empty for a few, which are seen at once."""
    if len(primary) <= MANY:
        return ""
    claims = len({verdict.contrast.claim.name for verdict in primary})
    counts = ", ".join(f"{status} in {n}" for status, n in count_statuses(primary))
    return f"{claims} {'claim' if claims == 1 else 'claims'}, {len(primary)} cases: {counts}."
