"""All claims of a store on one page that links no other file, and the same in Markdown and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import joblib

from bnstudy.claims.verdicts import Verdict
from bnstudy.report.all_studies import Studies, StudyEntry, index_content, judge_studies, processes
from bnstudy.report.cards import Card, claim_cards, claim_id
from bnstudy.report.forest import forest_of
from bnstudy.report.page import Progress, StudyPart, silent
from bnstudy.report.phrases import group_by_claim, primary_of
from bnstudy.report.rendering import render_html, render_markdown
from bnstudy.report.study_report import Folders, JudgedStudy, judge_study
from bnstudy.report.tables import as_json, round_numbers, verdict_table
from bnstudy.report.wording import count_statuses


@dataclass(frozen=True)
class PublishedClaim:
    """A claim with the studies that judge it, on different datasets."""

    card: Card
    parts: list[StudyPart]

    @property
    def commands(self) -> list[str]:
        """Those that train the runs."""
        return [command for part in self.parts for command in part.study.commands]


@dataclass(frozen=True)
class Published:
    """entries: of `claims.json`."""

    studies: Studies[JudgedStudy]
    claims: list[PublishedClaim]
    entries: list[dict[str, Any]]
    content: Mapping[str, Any]

    def files(self) -> dict[str, str]:
        """The text of each file. The same store gives the same texts."""
        return {
            "index.html": render_html("published.html.j2", self.content),
            "report.md": render_markdown("published.md.j2", self.content),
            "claims.json": as_json(self.entries),
            "verdicts.csv": verdict_table(self.entries),
        }


def read_published(folders: Folders, scale: str | None = None, progress: Progress = silent) -> Published:
    """Judge all claims of a store at one scale; errors as of `write_index`."""
    studies = judge_studies(folders, scale, judge_study, progress)
    progress("effects")
    claims = claims_of(studies)
    primary = primary_of(studies.found)
    entries = [StudyEntry(judged.part, count_statuses(primary_of(judged.found))) for judged in studies.judged.values()]
    content = index_content(folders, studies) | {
        "name": "Published results", "results_dir": folders.results, "claims": claims, "studies": entries,
        "forest": forest_of(primary, lambda v: f"#{claim_id(v.contrast.claim)}") if primary else None,
        "reproductions": [judged.part for judged in studies.judged.values() if judged.part.reproduction],
    }  # fmt: skip
    return Published(studies, claims, [_without_runs(entry) for entry in round_numbers(studies.found)], content)


def _without_runs(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The ids of runs, which the plans have as well, would be half of the file."""
    return {key: value for key, value in entry.items() if key != "run_ids"}


def claims_of(studies: Studies[JudgedStudy]) -> list[PublishedClaim]:
    """The cards of all claims, in order. Figures are drawn by several processes."""
    of_claims = group_by_claim(studies.found)
    parts = [_parts_of(of_claim, studies) for of_claim in of_claims]
    draw = joblib.delayed(_card)
    cards = joblib.Parallel(min(processes(), len(of_claims) or 1), batch_size=1)(
        draw(of_claim, its[0]) for of_claim, its in zip(of_claims, parts, strict=True)
    )
    return [PublishedClaim(card, its) for card, its in zip(cards, parts, strict=True)]


def _parts_of(of_claim: Sequence[Verdict], studies: Studies[JudgedStudy]) -> list[StudyPart]:
    return [studies.judged[name].part for name in dict.fromkeys(verdict.contrast.study for verdict in of_claim)]


def _card(of_claim: Sequence[Verdict], part: StudyPart) -> Card:
    return claim_cards(of_claim, part, set())[0]
