"""The reports on all studies of a store, and an index of their verdicts that links them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import joblib
import pandas as pd

from bnstudy.claims import verdicts
from bnstudy.claims.arms import dataset_name
from bnstudy.claims.claim import Status
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
from bnstudy.report.study_report import Folders, JudgedStudy, StudyReport, tally_cases, write_study_report
from bnstudy.report.tables import as_csv, verdict_files
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

J = TypeVar("J", bound=JudgedStudy)

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


@dataclass(frozen=True)
class Studies(Generic[J]):
    """The studies of a store at one scale, by name, and the verdicts on their claims, each once.

    waiting: a sentence for each study without finished runs.
    """

    scale: str
    judged: dict[str, J]
    found: list[Verdict]
    waiting: list[str]


def write_index(folders: Folders, scale: str | None, progress: Progress) -> ReportResult:
    """The report of each study of a store at one scale, by default the one planned last, and an index of them.

    The index has each claim once, see `judge_together`. Its verdicts are corrected together.

    Raises:
        ConfigError: no run of a study at that scale is finished; or as `write_report`.
    """
    studies = judge_studies(folders, scale, write_study_report, progress)
    progress("index")
    return _publish(folders, studies)


def judge_studies(
    folders: Folders, scale: str | None, judge: Callable[[Folders, str, str], J], progress: Progress = silent
) -> Studies[J]:
    """Judge each study of a store at one scale, several at a time; errors as of `write_index`."""
    plans = plans_at(Plans(folders.results), None if scale is None else str(scale))
    at = next(iter(plans.values()))["scale"]
    store = open_store(folders.results)
    begun = {name: plan for name, plan in plans.items() if any(map(store.is_finished, plan["run_ids"]))}
    if not begun:
        raise ConfigError(f"study=all: no run of a study at scale={at} is finished in {folders.results}.")
    waiting = [f"{name}: none of its {len(plans[name]['run_ids'])} runs is finished." for name in plans.keys() - begun]
    answers = dict(zip(begun, _judge_all(folders, list(begun), at, judge, progress), strict=True))
    waiting += [f"{name}: {nothing}" for name, nothing in answers.items() if isinstance(nothing, str)]
    judged = {name: answer for name, answer in answers.items() if not isinstance(answer, str)}
    if not judged:
        raise ConfigError(f"study=all: {waiting[-1]}")
    found = judge_together(judged, {name: begun[name] for name in judged})
    return Studies(at, judged, found, sorted(waiting))


def _judge_all(
    folders: Folders, names: Sequence[str], scale: str, judge: Callable[[Folders, str, str], J], progress: Progress
) -> Iterator[J | str]:
    """The answer on each study; a sentence where no run can be reported on."""
    workers = min(processes(), len(names))
    # A progress that draws is not sent to other processes.
    one = partial(_judge_one, judge, progress if workers == 1 else silent)
    answers = joblib.Parallel(workers, return_as="generator", batch_size=1, pre_dispatch=workers)(
        joblib.delayed(one)(folders, name, scale) for name in names
    )
    for i, name in enumerate(names, 1):
        progress(f"{name}, study {i} of {len(names)}")
        yield next(answers)


def _judge_one(judge: Callable[..., J], progress: Progress, folders: Folders, study: str, scale: str) -> J | str:
    try:
        return judge(folders, study, scale, progress=progress)
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


def judge_together(studies: Mapping[str, JudgedStudy], plans: Mapping[str, Mapping[str, Any]]) -> list[Verdict]:
    """The verdicts on each claim, once on each dataset, corrected for the number of all of them.

    The study that judges a claim: rather than a variant the study itself, of these the one with the most planned runs,
    of equals the first by name.
    """
    judges: dict[tuple[str, str], str] = {}
    for name in sorted(plans, key=lambda s: ("variant_of" in plans[s], -len(plans[s]["run_ids"]), s)):
        for verdict in studies[name].found:
            judges.setdefault(_topic(verdict), name)
    own = [v.contrast for name, study in studies.items() for v in study.found if judges[_topic(v)] == name]
    return verdicts.judge_all(sorted(own, key=lambda contrast: contrast.claim.order))


def _topic(verdict: Verdict) -> tuple[str, str]:
    contrast = verdict.contrast
    return contrast.claim.name, dataset_name(contrast.case.data)


def _publish(folders: Folders, studies: Studies[StudyReport]) -> ReportResult:
    content = index_content(folders, studies)
    reports, found, runs = studies.judged, studies.found, content["runs"]
    entries = [StudyEntry(report.part, _counts(report.found)) for report in reports.values()]
    primary = [verdict for verdict in found if verdict.contrast.is_primary]
    content |= {"studies": entries, "forest": forest_of(primary, card_href) if primary else None}
    index = publish(
        folders.results, EVERY_FOLDER, "all", content, [], {"runs.csv": as_csv(runs), **verdict_files(found)}
    )
    parts = [report.part for report in reports.values()]
    trained = runs.drop_duplicates("run_id")
    return ReportResult(
        folder=index.parent,
        index=index,
        verdicts=tuple(verdict.sentence for verdict in primary),
        findings=tuple(f"{part.study.name}: {text}" for part in parts if part.reproduction for text in part.findings),
        cautions=tuple(content["cautions"]),
        diverged=int(trained["diverged"].sum()),
        missing=content["missing"],
        tally=tally(found) if found else "",
        found=tuple(found),
        title=TITLE,
        answer=content["answer"],
    )


def index_content(folders: Folders, studies: Studies[Any]) -> dict[str, Any]:
    """What pages on all studies read, beside the forest. runs: a row for each run of each study."""
    parts = [judged.part for judged in studies.judged.values()]
    runs = pd.concat([part.study.runs.assign(study=part.study.name) for part in parts], ignore_index=True)
    trained = runs.drop_duplicates("run_id")
    planned = {run_id for part in parts for run_id in part.study.planned}
    primary = [verdict for verdict in studies.found if verdict.contrast.is_primary]
    thin, count = any(part.study.is_thin for part in parts), f"{len(parts)} {'study' if len(parts) == 1 else 'studies'}"
    return {
        "name": EVERY_FOLDER, "title": TITLE, "scale": studies.scale, "runs": runs,
        "report": folders.command(EVERY_STUDY, studies.scale),
        "answer": wording.answer(studies.found) if primary else "", "tally": tally_cases(primary),
        "cautions": cautions_of_all(folders, studies.judged, runs, studies.waiting),
        "missing": len(planned - {*trained["run_id"]}),
        "provenance": [count, *provenance(trained, len(planned), thin)],
    }  # fmt: skip


def study_href(name: str, file: str = "index.html") -> str:
    """A file of the report on a study, from the index."""
    return f"../{quote(name)}/{file}"


def card_href(verdict: Verdict) -> str:
    return f"{study_href(verdict.contrast.study)}#{claim_id(verdict.contrast.claim)}"


def _counts(found: Iterable[Verdict]) -> list[tuple[Status, int]]:
    return count_statuses([verdict for verdict in found if verdict.contrast.is_primary])


def cautions_of_all(
    folders: Folders, reports: Mapping[str, JudgedStudy], runs: pd.DataFrame, waiting: Sequence[str]
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
