"""The report on one study or several: a self-contained page, the same in Markdown, figures, and tables."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from bnstudy.claims import verdicts
from bnstudy.claims.arms import dataset_name
from bnstudy.claims.changed_plans import find_changes, mark_reported
from bnstudy.claims.claim import Claim, load_claims, present_claims
from bnstudy.claims.contrasts import Contrast, contrasts
from bnstudy.claims.frames import NothingFinished, StudyData, describe_damages, load_study
from bnstudy.claims.possible_claims import possible_contrasts
from bnstudy.report.commands import report_command
from bnstudy.report.page import StudyPart, claim_sections, networks_image, part_of
from bnstudy.report.rendering import publish
from bnstudy.report.result import ReportResult
from bnstudy.report.summary import describe_runs, duration
from bnstudy.report.wording import count_statuses
from bnstudy.store.loading import describe_images
from bnstudy.store.plans import Plans
from bnstudy.store.runs import SharedStore, Store
from bnstudy.validation import ConfigError, printable

EVERY_STUDY = "all"
"""The value of `study` for a report on all studies."""
EVERY_FOLDER = "all-studies"
"""The folder of that report; `all` holds the report on every run."""

MANY = 6
"""With more cases than these, the page begins with what was run and a count of verdicts."""


@dataclass
class Draft:
    """A report in the making, study by study: the measurements of one are freed before the next.

    contrasts: of all studies, which are judged together. taken: names of figures.
    """

    parts: list[StudyPart] = field(default_factory=list)
    contrasts: list[Contrast] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    config_dirs: Sequence[Path] = ()

    def add(
        self, study: StudyData, found: Iterable[Contrast], report: str, kinds: Collection[str] | None = None
    ) -> None:
        self.contrasts += found
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
        ConfigError: as `load_study` and `load_claims`; or the report cannot be written.
    """
    if study == EVERY_STUDY and not picked:
        return write_report_on_all(results_dir, scale, claim_dirs, config_dirs)
    about, draft = load_study(results_dir, study, scale, picked), Draft(config_dirs=config_dirs)
    scale = about.scale if study else None
    again = report_command(results_dir, study, scale, picked, claim_dirs, config_dirs=config_dirs)
    folders = [*claim_dirs, *(folder / "claim" for folder in config_dirs)]
    if study or picked:
        found, limits = contrasts_of(about, load_claims(about.claims, folders)), find_changes(Store(results_dir), about)
    else:
        found, limits = possible_contrasts(about, folders)
    draft.add(about, found, again)
    part = draft.parts[0]
    page: dict[str, Any] = {"name": about.name, "title": about.title, "scale": about.scale, "facts": part.facts}
    page |= {"several": False, "report": again}
    limits = [*(Plans(results_dir).damaged(about.name) if study else []), *limits]
    result = _write(results_dir, about.name, draft, page, [*part.cautions, *limits], about.runs)
    mark_reported(Store(results_dir), about)
    return result


def contrasts_of(study: StudyData, claims: Sequence[Claim]) -> list[Contrast]:
    return [contrast for claim in claims for contrast in contrasts(study, claim)]


def write_report_on_all(
    results_dir: Path, scale: str | None = None, claim_dirs: Sequence[Path] = (), config_dirs: Sequence[Path] = ()
) -> ReportResult:
    """The report on the studies of a store at one scale, by default the one planned last.

    A claim that several studies name is judged once, see `divide_claims`. All verdicts are corrected together.

    Raises:
        ConfigError: no run of a study at that scale is finished; or as `write_report`.
    """
    plans = _plans(Plans(results_dir), None if scale is None else str(scale))
    at = next(iter(plans.values()))["scale"]
    begun = {name: plan for name, plan in plans.items() if any(map(Store(results_dir).is_finished, plan["run_ids"]))}
    if not begun:
        raise ConfigError(f"study=all: no run of a study at scale={at} is finished in {results_dir}.")
    folders = [*claim_dirs, *(folder / "claim" for folder in config_dirs)]
    claims, draft = divide_claims(begun, folders), Draft(config_dirs=config_dirs)
    store = SharedStore(results_dir, Counter(run_id for plan in begun.values() for run_id in plan["run_ids"]))
    waiting = [f"{name}: none of its {len(plans[name]['run_ids'])} runs is finished." for name in plans.keys() - begun]
    for name, plan in begun.items():
        try:
            about = load_study(store, name, at)
        except NothingFinished as nothing:
            waiting.append(f"{name}: {nothing}")
            continue
        finally:
            store.release(plan["run_ids"])
        kinds = {kind for claim in claims[name] for kind in claim.figures}
        again = report_command(results_dir, name, at, claim_dirs=claim_dirs, config_dirs=config_dirs)
        draft.add(about, contrasts_of(about, claims[name]), again, kinds)
    if not draft.parts:
        raise ConfigError(f"study=all: {waiting[-1]}")
    page = {"name": EVERY_FOLDER, "title": "Which claims about normalization hold?", "scale": at, "several": True}
    again = report_command(results_dir, EVERY_STUDY, at, claim_dirs=claim_dirs, config_dirs=config_dirs)
    page |= {"facts": _facts_of_all(draft.parts), "report": again}
    runs = pd.concat([part.study.runs.assign(study=part.study.name) for part in draft.parts], ignore_index=True)
    studies = [part.study for part in draft.parts]
    changes = [f"{study.name}: {text}" for study in studies for text in find_changes(store, study)]
    mixed = describe_images(runs.assign(data=runs["data"].astype(str).map(dataset_name)).drop_duplicates("run_id"))
    damages = {run_id: sentence for study in studies for run_id, sentence in study.damages.items()}
    cautions = [*mixed, *_missing_of_all(draft.parts), *describe_damages(damages), *sorted(waiting)]
    cautions += [*Plans(results_dir).damaged(), *changes]
    result = _write(results_dir, EVERY_FOLDER, draft, page, cautions, runs)
    for study in studies:
        mark_reported(store, study)
    return result


def _plans(stored: Plans, scale: str | None) -> dict[str, dict[str, Any]]:
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


def divide_claims(plans: dict[str, dict[str, Any]], claim_dirs: Sequence[Path]) -> dict[str, list[Claim]]:
    """The claims by the study that judges them: rather than a variant the study itself, of these the one with the most
    planned runs, of equals the first by name."""
    by_size = sorted(plans, key=lambda s: ("variant_of" in plans[s], -len(plans[s]["run_ids"]), s))
    named = {study: present_claims(plan.get("claims", ()), claim_dirs) for study, plan in plans.items()}
    judges = {claim: study for study in reversed(by_size) for claim in named[study]}
    divided: dict[str, list[Claim]] = {study: [] for study in plans}
    for claim in load_claims(sorted(judges), claim_dirs):
        divided[judges[claim.name]].append(claim)
    return divided


def _facts_of_all(parts: Sequence[StudyPart]) -> list[tuple[str, str]]:
    runs = pd.concat([part.study.runs for part in parts], ignore_index=True).drop_duplicates("run_id")
    seeds = sorted(part.study.runs["seed"].nunique() for part in parts)
    return [
        ("Studies", str(len(parts))),
        ("Runs", describe_runs(runs, len(_planned(parts)))),
        ("Seeds", f"{seeds[0]} to {seeds[-1]}, by study" if seeds[0] < seeds[-1] else str(seeds[0])),
        ("Data", ", ".join(sorted(runs["data"].astype(str).unique()))),
        ("Training", f"{duration(runs['seconds.training'].sum())} in total, without evaluation and probes"),
        ("Devices", ", ".join(sorted(runs["device"].dropna().unique()))),
    ]


def _planned(parts: Iterable[StudyPart]) -> set[str]:
    return {run_id for part in parts for run_id in part.study.planned}


def _missing_of_all(parts: Iterable[StudyPart]) -> list[str]:
    short = [part.study for part in parts if part.study.n_missing]
    named = ", ".join(f"{study.n_missing} of {len(study.planned)} in {study.name}" for study in short)
    return [f"Runs are missing: {named}. The results of these studies may change."] if short else []


def _write(
    results_dir: Path, name: str, draft: Draft, page: dict[str, Any], cautions: Sequence[str], runs: pd.DataFrame
) -> ReportResult:
    found = verdicts.judge_all(sorted(draft.contrasts, key=lambda contrast: contrast.claim.order))
    claims = claim_sections(found, draft.parts, draft.taken)
    in_claims = {image.name for section in claims for image in section.images}
    primary = [verdict for section in claims for verdict in section.primary]
    counts = ", ".join(f"{status} in {n}" for status, n in count_statuses(primary))
    page["tally"] = f"{len(claims)} claims, {len(primary)} cases: {counts}." if len(primary) > MANY else ""
    networks = None if page["several"] else networks_image(found, draft.taken)
    content = {**page, "parts": draft.parts, "claims": claims, "in_claims": in_claims, "cautions": list(cautions)}
    content["networks"] = networks
    images = [section.effect for section in claims] + [image for part in draft.parts for image in part.images]
    images += [networks] if networks else []
    files = {"runs.csv": as_csv(runs), "claims.json": as_json(verdicts.as_json(found))}
    index = publish(results_dir, name, "index", content, images, files)
    several, trained = page["several"], runs.drop_duplicates("run_id")
    return ReportResult(
        folder=index.parent,
        index=index,
        verdicts=tuple(verdict.sentence for verdict in (primary if several else found)),
        findings=tuple(f"{part.study.name}: " * several + text for part in draft.parts for text in part.findings),
        cautions=tuple(cautions),
        diverged=int(trained["diverged"].sum()),
        missing=len(_planned(draft.parts) - {*trained["run_id"]}),
        tally=tally(found) if several and found else "",
        found=tuple(found),
    )


def tally(found: Sequence[verdicts.Verdict]) -> str:
    """`"3 verdicts in all views: 2 SUPPORTED, 1 NEGLIGIBLE."`."""
    noun = "verdict" if len(found) == 1 else "verdicts"
    counts = ", ".join(f"{n} {status}" for status, n in count_statuses(found))
    return f"{len(found)} {noun} in all views: {counts}."


def as_csv(runs: pd.DataFrame) -> str:
    columns = ["run_id", *sorted(c for c in runs.columns if c != "run_id")]
    table = runs[columns].rename(columns=as_cell)
    texts = [c for c in table if table[c].dtype.kind == "O"]
    table[texts] = table[texts].astype(object).map(as_cell)
    return table.to_csv(index=False, lineterminator="\n")


def as_cell(value: Any) -> Any:
    """A value as a cell that a spreadsheet shows: a text that it would run as a formula begins with an apostrophe."""
    if not isinstance(value, str):
        return value
    text = printable(value, keep="")
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) and not is_number(text) else text


def is_number(text: str) -> bool:
    with suppress(ValueError):
        return math.isfinite(float(text))
    return False


def as_json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"
