"""The report on one study or several: a self-contained page, the same in Markdown, figures, and tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from bnstudy.claims import verdicts
from bnstudy.claims.claim import Claim
from bnstudy.claims.contrasts import Contrast, contrasts
from bnstudy.claims.frames import StudyData, load_study
from bnstudy.report.commands import report_command
from bnstudy.report.page import StudyPart, claim_sections, part_of
from bnstudy.report.rendering import publish
from bnstudy.report.summary import duration
from bnstudy.report.verdict_rows import count_statuses, rows_of, tally
from bnstudy.store.runs import SharedStore, Store
from bnstudy.validation import ConfigError

EVERY_STUDY = "all"
"""The value of `study` for a report on all studies."""
EVERY_FOLDER = "all-studies"
"""The folder of that report; `all` holds the report on every run."""

MANY = 6
"""With more cases than these, the page begins with what was run and a count of verdicts."""


@dataclass(frozen=True)
class ReportResult:
    """The files of a report, and its results.

    verdicts: in sentences; of a report on several studies those in the primary views. tally: there, the count of
    verdicts in all views. diverged, missing: numbers of runs, each counted once; missing are planned and not finished.
    """

    folder: Path
    index: Path
    verdicts: tuple[str, ...]
    findings: tuple[str, ...]
    cautions: tuple[str, ...]
    diverged: int
    missing: int
    tally: str = ""

    @property
    def lines(self) -> tuple[str, ...]:
        """For the terminal; of a report on several studies the most important lines are last."""
        results = (*self.verdicts, *self.findings)
        return (*results, self.tally, *self.cautions) if self.tally else (*self.cautions, *results)


@dataclass
class Draft:
    """A report in the making, study by study: the measurements of one are freed before the next.

    contrasts: of all studies, which are judged together. taken: names of figures.
    """

    parts: list[StudyPart] = field(default_factory=list)
    contrasts: list[Contrast] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    config_dirs: Sequence[Path] = ()

    def add(self, study: StudyData, claims: Sequence[Claim], report: str, kinds: Collection[str] | None = None) -> None:
        self.contrasts += [contrast for claim in claims for contrast in contrasts(study, claim)]
        self.parts.append(part_of(study, self.taken, report, kinds, self.config_dirs))


def write_report(
    results_dir: Path,
    study: str | None = None,
    scale: str | None = None,
    picked: Collection[str] = (),
    claim_dirs: Sequence[Path] = (),
    config_dirs: Sequence[Path] = (),
) -> ReportResult:
    """Write `<results_dir>/reports/<study>/`; the same store gives the same bytes.

    Args:
        study: a name; `all` for every study in the store, in `reports/all-studies/`; None for every run of the store,
            in `reports/all/`.
        scale: of the study, by default the one planned last.
        picked: ids of runs, for a report on these alone, in `reports/runs-<ids>/`.
        claim_dirs: folders with claims of the user's own.
        config_dirs: folders with `claim/`, `figure/` and `reproduction/` of the user's own.

    Raises:
        ConfigError: as `load_study` and `claims_named`; or the report cannot be written.
    """
    if study == EVERY_STUDY and not picked:
        return write_report_on_all(results_dir, scale, claim_dirs, config_dirs)
    about, draft = load_study(results_dir, study, scale, picked), Draft(config_dirs=config_dirs)
    scale = about.scale if study else None
    again = report_command(results_dir, study, scale, picked, claim_dirs, config_dirs=config_dirs)
    folders = [*claim_dirs, *(folder / "claim" for folder in config_dirs)]
    draft.add(about, verdicts.claims_named(about.claims, folders), again)
    part = draft.parts[0]
    page: dict[str, Any] = {"name": part.name, "title": part.title, "scale": part.scale, "facts": part.facts}
    page |= {"several": False, "report": part.report}
    return _write(results_dir / "reports" / part.name, draft, page, part.cautions, part.runs)


def write_report_on_all(
    results_dir: Path, scale: str | None = None, claim_dirs: Sequence[Path] = (), config_dirs: Sequence[Path] = ()
) -> ReportResult:
    """The report on the studies of a store at one scale, by default the one planned last.

    A claim that several studies name is judged once, see `divide_claims`. All verdicts are corrected together.

    Raises:
        ConfigError: no run of a study at that scale is finished; or as `write_report`.
    """
    plans = _plans(Store(results_dir), None if scale is None else str(scale))
    at = next(iter(plans.values()))["scale"]
    begun = {name: plan for name, plan in plans.items() if _has_finished(Store(results_dir), plan)}
    if not begun:
        raise ConfigError(f"study=all: no run of a study at scale={at} is finished in {results_dir}.")
    folders = [*claim_dirs, *(folder / "claim" for folder in config_dirs)]
    claims, draft = divide_claims(begun, folders), Draft(config_dirs=config_dirs)
    store = SharedStore(results_dir, Counter(run_id for plan in begun.values() for run_id in plan["run_ids"]))
    for name, plan in begun.items():
        about = load_study(store, name, at)
        store.release(plan["run_ids"])
        kinds = {kind for claim in claims[name] for kind in claim.figures}
        again = report_command(results_dir, name, at, claim_dirs=claim_dirs, config_dirs=config_dirs)
        draft.add(about, claims[name], again, kinds)
    waiting = [f"{name}: none of its {len(plans[name]['run_ids'])} runs is finished." for name in plans.keys() - begun]
    page = {"name": EVERY_FOLDER, "title": "Which claims about normalization hold?", "scale": at, "several": True}
    again = report_command(results_dir, EVERY_STUDY, at, claim_dirs=claim_dirs, config_dirs=config_dirs)
    page |= {"facts": _facts_of_all(draft.parts), "report": again}
    runs = pd.concat([part.runs.assign(study=part.name) for part in draft.parts], ignore_index=True)
    cautions = [*_missing_of_all(draft.parts), *sorted(waiting)]
    return _write(results_dir / "reports" / EVERY_FOLDER, draft, page, cautions, runs)


def _plans(store: Store, scale: str | None) -> dict[str, dict[str, Any]]:
    """Each study's plan at the scale, by name."""
    found = {name: {plan["scale"]: plan for plan in store.plans(name)} for name in store.studies()}
    if not found:
        raise ConfigError(
            f"study=all: no study has been run in {store.results_dir}. To run one: bnstudy study=quickstart"
        )
    at = _last_scale(store) if scale is None else scale
    plans = {name: by_scale[at] for name, by_scale in found.items() if at in by_scale}
    if not plans:
        known = ", ".join(sorted({known for by_scale in found.values() for known in by_scale}))
        raise ConfigError(f"study=all: no study has been run at scale={at} in {store.results_dir}, but at {known}.")
    return plans


def _last_scale(store: Store) -> str:
    """The one planned last."""
    files = (store.results_dir / "studies").glob("*/*/*.json")
    return max(files, key=lambda path: (path.stat().st_mtime_ns, str(path))).parent.name


def _has_finished(store: Store, plan: dict[str, Any]) -> bool:
    return any(store.is_finished(run_id) for run_id in plan["run_ids"])


def divide_claims(plans: dict[str, dict[str, Any]], claim_dirs: Sequence[Path]) -> dict[str, list[Claim]]:
    """The claims by the study that judges them: the one with the most planned runs, the first by name of equals."""
    by_size = sorted(plans, key=lambda study: (-len(plans[study]["run_ids"]), study))
    judges = {str(claim): study for study in reversed(by_size) for claim in plans[study].get("claims", ())}
    divided: dict[str, list[Claim]] = {study: [] for study in plans}
    for claim in verdicts.claims_named(sorted(judges), claim_dirs):
        divided[judges[claim.name]].append(claim)
    return divided


def _facts_of_all(parts: Sequence[StudyPart]) -> list[tuple[str, str]]:
    runs = pd.concat([part.runs for part in parts], ignore_index=True).drop_duplicates("run_id")
    seeds = sorted(part.runs["seed"].nunique() for part in parts)
    return [
        ("Studies", str(len(parts))),
        ("Runs", f"{len(runs)} of {len(_planned(parts))} finished, {int(runs['diverged'].sum())} of them diverged"),
        ("Seeds", f"{seeds[0]} to {seeds[-1]}, by study" if seeds[0] < seeds[-1] else str(seeds[0])),
        ("Data", ", ".join(sorted(runs["data"].astype(str).unique()))),
        ("Training", f"{duration(runs['seconds.training'].sum())} in total, without evaluation and probes"),
        ("Devices", ", ".join(sorted(runs["device"].dropna().unique()))),
    ]


def _planned(parts: Iterable[StudyPart]) -> set[str]:
    return {run_id for part in parts for run_id in part.planned_ids}


def _missing_of_all(parts: Iterable[StudyPart]) -> list[str]:
    short = [part for part in parts if part.n_missing]
    if not short:
        return []
    named = ", ".join(f"{part.n_missing} of {part.planned} in {part.name}" for part in short)
    return [f"Runs are missing: {named}. The results of these studies may change."]


def _write(
    folder: Path, draft: Draft, page: dict[str, Any], cautions: Sequence[str], runs: pd.DataFrame
) -> ReportResult:
    found = verdicts.judge_all(sorted(draft.contrasts, key=lambda contrast: contrast.claim.order))
    claims = claim_sections(found, draft.parts, draft.taken)
    in_claims = {shown.name for section in claims for shown in section.images}
    primary = [row for section in claims for row in section.primary]
    counts = f"{len(claims)} claims, {len(primary)} cases: {count_statuses(primary)}."
    page["tally"] = counts if len(primary) > MANY else ""
    content = {**page, "parts": draft.parts, "claims": claims, "in_claims": in_claims, "cautions": list(cautions)}
    images = [section.effect for section in claims] + [shown for part in draft.parts for shown in part.images]
    files = {"runs.csv": as_csv(runs), "claims.json": as_json(verdicts.as_json(found))}
    index = publish(folder, "index", content, images, files)
    several, rows, trained = page["several"], rows_of(found), runs.drop_duplicates("run_id")
    return ReportResult(
        folder=folder,
        index=index,
        verdicts=tuple(row.sentence for row in rows if row.is_primary or not several),
        findings=tuple(_prefix(part, several) + text for part in draft.parts for text in part.findings),
        cautions=tuple(cautions),
        diverged=int(trained["diverged"].sum()),
        missing=len(_planned(draft.parts) - {*trained["run_id"]}),
        tally=tally(rows) if several and rows else "",
    )


def _prefix(part: StudyPart, several: bool) -> str:
    return f"{part.name}: " if several else ""


def as_csv(runs: pd.DataFrame) -> str:
    columns = ["run_id", *sorted(c for c in runs.columns if c != "run_id")]
    return runs[columns].to_csv(index=False, lineterminator="\n")


def as_json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"
