"""The reports on all studies of a store, and an index of their verdicts that links them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import joblib
import pandas as pd

from bnstudy.claims import verdicts
from bnstudy.claims.arms import dataset_name
from bnstudy.claims.claim import Status, load_claims, present_claims
from bnstudy.claims.frames import NothingFinished, describe_damages
from bnstudy.claims.verdicts import Verdict
from bnstudy.report import wording
from bnstudy.report.cards import claim_id
from bnstudy.report.cautions import THIN
from bnstudy.report.forest import forest_of
from bnstudy.report.page import Progress, StudyPart, silent
from bnstudy.report.provenance import provenance
from bnstudy.report.rendering import publish
from bnstudy.report.result import ReportResult
from bnstudy.report.study_report import Folders, StudyReport, tally_cases, write_study_report
from bnstudy.report.tables import as_csv, as_json
from bnstudy.report.wording import count_statuses
from bnstudy.store.loading import describe_images
from bnstudy.store.packed import open_store
from bnstudy.store.plans import Plans
from bnstudy.validation import ConfigError

EVERY_STUDY = "all"
"""The value of `study` for a report on all studies."""
EVERY_FOLDER = "all-studies"
"""The folder of that report; `all` holds the report on every run."""
TITLE = "Which claims about normalization hold?"

MOST_PROCESSES = 8
"""Each holds the measurements of a study."""


@dataclass(frozen=True)
class StudyEntry:
    """A study in the index. counts: of the verdicts on its own page, in primary views."""

    part: StudyPart
    counts: list[tuple[Status, int]]

    @property
    def href(self) -> str:
        return study_href(self.part.study.name)

    @property
    def markdown(self) -> str:
        return study_href(self.part.study.name, "report.md")


def write_index(folders: Folders, scale: str | None, progress: Progress) -> ReportResult:
    """The report of each study of a store at one scale, by default the one planned last, and an index of them.

    The index has each claim once, see `divide_claims`. Its verdicts are corrected together.

    Raises:
        ConfigError: no run of a study at that scale is finished; or as `write_report`.
    """
    plans = plans_at(Plans(folders.results), None if scale is None else str(scale))
    at = next(iter(plans.values()))["scale"]
    store = open_store(folders.results)
    begun = {name: plan for name, plan in plans.items() if any(map(store.is_finished, plan["run_ids"]))}
    if not begun:
        raise ConfigError(f"study=all: no run of a study at scale={at} is finished in {folders.results}.")
    waiting = [f"{name}: none of its {len(plans[name]['run_ids'])} runs is finished." for name in plans.keys() - begun]
    reports = dict(zip(begun, write_all(folders, list(begun), at, progress), strict=True))
    waiting += [f"{name}: {nothing}" for name, nothing in reports.items() if isinstance(nothing, str)]
    written = {name: report for name, report in reports.items() if isinstance(report, StudyReport)}
    if not written:
        raise ConfigError(f"study=all: {waiting[-1]}")
    progress("index")
    judges = divide_claims({name: begun[name] for name in written}, folders)
    return _publish(folders, at, written, judges, sorted(waiting))


def write_all(folders: Folders, names: Sequence[str], scale: str, progress: Progress) -> Iterator[StudyReport | str]:
    """Write the report of each study, several at a time; a sentence where no run can be reported on."""
    workers = min(processes(), len(names))
    write = joblib.delayed(write_one)
    drawn = joblib.Parallel(workers, return_as="generator", batch_size=1, pre_dispatch=workers)(
        write(folders, name, scale, progress if workers == 1 else silent) for name in names
    )
    for i, name in enumerate(names, 1):
        progress(f"{name}, study {i} of {len(names)}")
        yield next(drawn)


def write_one(folders: Folders, study: str, scale: str, progress: Progress) -> StudyReport | str:
    try:
        return write_study_report(folders, study, scale, progress=progress)
    except NothingFinished as nothing:
        return str(nothing)


def processes() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_PROCESSES)


def plans_at(stored: Plans, scale: str | None) -> dict[str, dict[str, Any]]:
    """Each study's plan at the scale, by name; by default at the scale planned last."""
    by_study = {name: stored.load(name) for name in stored.studies()}
    if not any(by_study.values()):
        raise ConfigError(
            f"study=all: no study has been run in {stored.results_dir}. To run one: bnstudy study=quickstart"
            + "".join(f" {sentence}" for sentence in stored.damaged())
        )
    latest = max((plans[0]["planned_ns"], name) for name, plans in by_study.items() if plans)[1]
    at = scale or by_study[latest][0]["scale"]
    found = {name: {plan["scale"]: plan for plan in plans} for name, plans in by_study.items()}
    plans = {name: by_scale[at] for name, by_scale in found.items() if at in by_scale}
    if not plans:
        known = ", ".join(sorted({known for by_scale in found.values() for known in by_scale}))
        raise ConfigError(f"study=all: no study has been run at scale={at} in {stored.results_dir}, but at {known}.")
    return plans


def divide_claims(plans: dict[str, dict[str, Any]], folders: Folders) -> dict[str, str]:
    """The study that judges each claim: rather than a variant the study itself, of these the one with the most planned
    runs, of equals the first by name."""
    by_size = sorted(plans, key=lambda s: ("variant_of" in plans[s], -len(plans[s]["run_ids"]), s))
    named = {study: present_claims(plan.get("claims", ()), folders.of_claims) for study, plan in plans.items()}
    judges = {claim: study for study in reversed(by_size) for claim in named[study]}
    return {claim.name: judges[claim.name] for claim in load_claims(sorted(judges), folders.of_claims)}


def _publish(
    folders: Folders, scale: str, reports: dict[str, StudyReport], judges: dict[str, str], waiting: Sequence[str]
) -> ReportResult:
    parts = [report.part for report in reports.values()]
    runs = pd.concat([part.study.runs.assign(study=part.study.name) for part in parts], ignore_index=True)
    trained = runs.drop_duplicates("run_id")
    found = judge_together(reports, judges)
    primary = [verdict for verdict in found if verdict.contrast.is_primary]
    entries = [StudyEntry(report.part, _counts(report.result.found)) for report in reports.values()]
    cautions = cautions_of_all(folders, reports, runs, waiting)
    planned = {run_id for part in parts for run_id in part.study.planned}
    thin, count = any(part.study.is_thin for part in parts), f"{len(parts)} {'study' if len(parts) == 1 else 'studies'}"
    content: dict[str, Any] = {
        "name": EVERY_FOLDER, "title": TITLE, "scale": scale, "report": folders.command(EVERY_STUDY, scale),
        "answer": wording.answer(found) if primary else "", "tally": tally_cases(primary),
        "forest": forest_of(primary, card_href) if primary else None, "studies": entries, "cautions": cautions,
        "provenance": [count, *provenance(trained, len(planned), thin)],
    }  # fmt: skip
    files = {"runs.csv": as_csv(runs), "claims.json": as_json(verdicts.as_json(found))}
    index = publish(folders.results, EVERY_FOLDER, "all", content, [], files)
    return ReportResult(
        folder=index.parent,
        index=index,
        verdicts=tuple(verdict.sentence for verdict in primary),
        findings=tuple(f"{part.study.name}: {text}" for part in parts if part.reproduction for text in part.findings),
        cautions=tuple(cautions),
        diverged=int(trained["diverged"].sum()),
        missing=len(planned - {*trained["run_id"]}),
        tally=tally(found) if found else "",
        found=tuple(found),
        title=TITLE,
        answer=content["answer"],
    )


def judge_together(reports: dict[str, StudyReport], judges: dict[str, str]) -> list[Verdict]:
    """The verdicts on each claim by the study that judges it, corrected for the number of all of them."""
    every = [verdict.contrast for report in reports.values() for verdict in report.result.found]
    own = [contrast for contrast in every if judges[contrast.claim.name] == contrast.study]
    return verdicts.judge_all(sorted(own, key=lambda contrast: contrast.claim.order))


def study_href(name: str, file: str = "index.html") -> str:
    """A file of the report on a study, from the index."""
    return f"../{quote(name)}/{file}"


def card_href(verdict: Verdict) -> str:
    return f"{study_href(verdict.contrast.study)}#{claim_id(verdict.contrast.claim)}"


def _counts(found: Iterable[Verdict]) -> list[tuple[Status, int]]:
    return count_statuses([verdict for verdict in found if verdict.contrast.is_primary])


def cautions_of_all(
    folders: Folders, reports: dict[str, StudyReport], runs: pd.DataFrame, waiting: Sequence[str]
) -> list[str]:
    """What limits the verdicts: mixed images, missing and damaged runs, plans that were changed or are damaged."""
    studies = [report.part.study for report in reports.values()]
    short = [study for study in studies if study.n_missing]
    named = ", ".join(f"{study.n_missing} of {len(study.planned)} in {study.name}" for study in short)
    missing = [f"Runs are missing: {named}. The results of these studies may change."] if short else []
    mixed = describe_images(runs.assign(data=runs["data"].astype(str).map(dataset_name)).drop_duplicates("run_id"))
    damages = {run_id: sentence for study in studies for run_id, sentence in study.damages.items()}
    thin = [THIN] if any(study.is_thin for study in studies) else []
    changes = [f"{report.part.study.name}: {text}" for report in reports.values() for text in report.changes]
    return [*mixed, *missing, *thin, *describe_damages(damages), *waiting, *Plans(folders.results).damaged(), *changes]


def tally(found: Sequence[Verdict]) -> str:
    """`"3 verdicts in all views: 2 SUPPORTED, 1 NEGLIGIBLE."`."""
    noun = "verdict" if len(found) == 1 else "verdicts"
    counts = ", ".join(f"{n} {status}" for status, n in count_statuses(found))
    return f"{len(found)} {noun} in all views: {counts}."
