"""The contents of the page on one study beside its claims: arms, figures, published results, what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bnstudy.claims.completeness import missing_by_arm
from bnstudy.claims.contrasts import Contrast
from bnstudy.claims.frames import StudyData
from bnstudy.report.arm_tables import arm_rows, diverged_lines, probe_overhead
from bnstudy.report.cautions import cautions
from bnstudy.report.figures import DrawFigure, Palette, load_figures
from bnstudy.report.findings import findings
from bnstudy.report.images import Image, draw_image, panel_images, slug
from bnstudy.report.panels import Panel, panels
from bnstudy.report.reproductions import ReproductionResult, reproduce
from bnstudy.report.summary import facts

Progress = Callable[[str], None]
"""Is told what is drawn next, such as `"dead-units, MLP on Digits"`."""


def silent(text: str) -> None:
    """Tell nobody what is drawn next."""


@dataclass(frozen=True)
class PanelSection:
    """One model on one dataset, with all of its figures."""

    name: str
    rows: list[dict[str, Any]]
    images: list[Image]

    @property
    def id(self) -> str:
        return f"arms-{slug(self.name)}"


@dataclass(frozen=True)
class StudyPart:
    """A study in a report, beside its verdicts.

    study: without its measurements, which may be large. report: the command that draws the report of the study.
    missing: of each incomplete arm; missing_others: the number of other missing runs.
    """

    study: StudyData
    report: str
    missing: list[str]
    missing_others: int
    facts: list[tuple[str, str]]
    findings: list[str]
    cautions: list[str]
    diverged: list[str]
    sections: list[PanelSection]
    costs: list[dict[str, Any]]
    reproduction: ReproductionResult | None
    reproduction_images: list[Image]

    @property
    def id(self) -> str:
        return slug(self.study.name)

    @property
    def images(self) -> list[Image]:
        return [*self.reproduction_images, *(image for section in self.sections for image in section.images)]

    def without_panel_images(self) -> StudyPart:
        """Without measurements that figures draw, and with one figure: of the reproduction."""
        sections = [replace(section, images=[]) for section in self.sections]
        reproduction = replace(self.reproduction, draw=draw_nothing) if self.reproduction else None
        return replace(self, sections=sections, reproduction=reproduction)


def draw_nothing() -> None:
    """In place of a figure whose measurements are gone."""


def part_of(
    study: StudyData,
    taken: set[str],
    report: str,
    config_dirs: Sequence[Path] = (),
    progress: Progress = silent,
    contrasts: Sequence[Contrast] = (),
    figures: Mapping[str, DrawFigure] | None = None,
) -> StudyPart:
    """A study with its figures.

    Args:
        taken: file names already in use.
        config_dirs: folders with figures and reproductions of the user's own.
        contrasts: of the study; some figures show what they compare.
        figures: of each model and dataset, by kind; by default all.
    """
    missing, others = missing_by_arm(study)
    kinds = load_figures(config_dirs) if figures is None else figures
    reproduction, published = reproduce(study, config_dirs), None
    if reproduction:
        progress(f"published results, {study.name}")
        published = draw_image(reproduction.draw, f"published-{study.name}", taken, study.name)
    return StudyPart(
        study=replace(study, metrics=study.metrics[:0].copy(), timing=study.timing[:0].copy(), test_correct={}),
        report=report,
        missing=missing,
        missing_others=others,
        facts=facts(study),
        # The findings of a reproduction are in its table; the accuracy of its arms is not the point.
        findings=reproduction.findings if reproduction else findings(study),
        cautions=cautions(study),
        diverged=diverged_lines(study),
        sections=panel_sections(panels(study, contrasts), Palette.of(study.runs), taken, kinds, progress),
        costs=probe_overhead(study.runs),
        reproduction=reproduction,
        reproduction_images=[published] if published else [],
    )


def panel_sections(
    shown: Sequence[Panel], palette: Palette, taken: set[str], figures: Mapping[str, DrawFigure], progress: Progress
) -> list[PanelSection]:
    """Each model and dataset with its arms and figures."""
    sections = []
    for panel in shown:
        images = []
        for kind, draw in figures.items():
            progress(f"{kind}, {panel.name}")
            images += panel_images(panel, palette, {kind: draw}, taken)
        sections.append(PanelSection(panel.name, arm_rows(panel.runs), images))
    return sections
