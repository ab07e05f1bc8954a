"""The contents of a report's page, ready for its templates: verdicts by claim, and a part for each study."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import pandas as pd

from bnstudy.claims.claim import Claim
from bnstudy.claims.completeness import missing_by_arm
from bnstudy.claims.frames import StudyData
from bnstudy.claims.verdicts import Verdict
from bnstudy.report import summary
from bnstudy.report.counterevidence import find_counterevidence
from bnstudy.report.figures import Palette, draw_panel, load_figures
from bnstudy.report.figures.effects import draw_effect
from bnstudy.report.figures.style import report_style
from bnstudy.report.images import Image, render_image, slug
from bnstudy.report.probe_overhead import OverheadRow, probe_overhead
from bnstudy.report.reproductions import ReproductionResult, reproduce
from bnstudy.report.summary import ArmRow
from bnstudy.report.transforms import panels
from bnstudy.report.verdict_rows import VerdictRow, rows_of, summarize_claim


@dataclass(frozen=True)
class PanelSection:
    """One model on one dataset, with all of its figures."""

    name: str
    rows: list[ArmRow]
    images: list[Image]


@dataclass(frozen=True)
class StudyPart:
    """A study in a report, beside its verdicts: everything but its measurements, which may be large.

    report: the command that draws the report of the study alone.
    planned_ids: of the runs, as `StudyData.planned` has them.
    """

    name: str
    title: str
    scale: str | None
    commands: tuple[str, ...]
    report: str
    runs: pd.DataFrame
    planned_ids: tuple[str, ...]
    missing: list[str]
    missing_others: int
    failures: dict[str, str]
    facts: list[tuple[str, str]]
    findings: list[str]
    cautions: list[str]
    diverged: list[str]
    sections: list[PanelSection]
    costs: list[OverheadRow]
    reproduction: ReproductionResult | None
    reproduction_images: list[Image]

    @property
    def id(self) -> str:
        return slug(self.name)

    @property
    def planned(self) -> int:
        return len(self.planned_ids)

    @property
    def n_missing(self) -> int:
        return self.planned - len(self.runs)

    @property
    def images(self) -> list[Image]:
        return [*self.reproduction_images, *(shown for section in self.sections for shown in section.images)]


@dataclass(frozen=True)
class ClaimSection:
    """A claim in a report.

    part: the study that judges it. effect: the figure of its effect. images: others that show it; elsewhere: those
    that are in the section of an earlier claim.
    """

    claim: Claim
    summary: str
    rows: list[VerdictRow]
    counterevidence: list[str]
    run_ids: list[str]
    part: StudyPart
    effect: Image
    images: list[Image] = field(default_factory=list)
    elsewhere: list[Image] = field(default_factory=list)

    @property
    def id(self) -> str:
        return f"claim-{slug(self.claim.name)}"

    @property
    def primary(self) -> list[VerdictRow]:
        return [row for row in self.rows if row.is_primary]

    @property
    def status(self) -> str:
        """That of all cases in the primary view; empty where they differ."""
        found = {row.status for row in self.primary}
        return found.pop() if len(found) == 1 else ""


def part_of(
    study: StudyData,
    taken: set[str],
    report: str,
    kinds: Collection[str] | None = None,
    config_dirs: Sequence[Path] = (),
) -> StudyPart:
    """A study with its figures, all or those of some kinds.

    Args:
        taken: file names already in use.
        config_dirs: folders with figures and reproductions of the user's own.
    """
    several = kinds is not None
    missing, others = missing_by_arm(study)
    with report_style():
        reproduction = reproduce(study, config_dirs)
        prefix = f"{study.name}-" if several else ""
        figure = reproduction.figure if reproduction else None
        published = [render_image(figure, f"{prefix}published-{figure.kind}", taken)] if figure else []
        sections = _sections(study, taken, kinds, prefix, config_dirs)
    return StudyPart(
        name=study.name,
        title=study.title,
        scale=study.scale,
        commands=study.commands,
        report=report,
        runs=study.runs,
        planned_ids=study.planned,
        missing=missing,
        missing_others=others,
        failures=study.failures,
        facts=summary.facts(study),
        # The findings of a reproduction are in its table; the accuracy of its arms is not the point.
        findings=reproduction.findings if reproduction else [] if several else summary.findings(study),
        cautions=summary.cautions(study),
        diverged=summary.diverged_lines(study),
        sections=sections,
        costs=[] if several else probe_overhead(study.runs),
        reproduction=reproduction,
        reproduction_images=published,
    )


def _sections(
    study: StudyData, taken: set[str], kinds: Collection[str] | None, prefix: str, config_dirs: Sequence[Path]
) -> list[PanelSection]:
    palette, figures = Palette.of(study.runs), load_figures(config_dirs)
    return [
        PanelSection(
            panel.name,
            summary.arm_rows(panel.runs),
            [
                render_image(figure, f"{prefix}{figure.kind}-{panel.name}", taken)
                for figure in draw_panel(panel, palette, figures, kinds)
            ],
        )
        for panel in panels(study)
    ]


def claim_sections(found: Iterable[Verdict], parts: Sequence[StudyPart], taken: set[str]) -> list[ClaimSection]:
    """One for each claim, in order; a figure that several claims name is in the section of the first."""
    by_name, shown, sections = {part.name: part for part in parts}, set[str](), []
    for _, group in groupby(found, key=lambda v: v.contrast.claim.name):
        of_claim = list(group)
        claim, part = of_claim[0].contrast.claim, by_name[of_claim[0].contrast.study]
        rows, all_images = rows_of(of_claim), [i for section in part.sections for i in section.images]
        named = sorted((i for i in all_images if i.kind in claim.figures), key=lambda i: claim.figures.index(i.kind))
        with report_style():
            effect = render_image(draw_effect(of_claim), f"effect-{claim.name}", taken)
        sections.append(
            ClaimSection(
                claim, summarize_claim(rows), rows, find_counterevidence(of_claim),
                sorted({run_id for v in of_claim for run_id in v.contrast.run_ids}), part, effect,
                images=[i for i in named if i.name not in shown],
                elsewhere=[i for i in named if i.name in shown],
            )
        )  # fmt: skip
        shown |= {i.name for i in named}
    return sections
