"""The contents of a report's page, ready for its templates: verdicts by claim, and a part for each study."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from bnstudy.claims.claim import Claim
from bnstudy.claims.completeness import missing_by_arm
from bnstudy.claims.contrasts import SIDES
from bnstudy.claims.counterevidence import find_counterevidence
from bnstudy.claims.frames import StudyData
from bnstudy.claims.verdicts import Verdict, describe_rates
from bnstudy.report import summary
from bnstudy.report.figures import Palette, load_figures
from bnstudy.report.figures.effects import draw_effect
from bnstudy.report.figures.networks import draw_networks
from bnstudy.report.images import Image, draw_image, panel_images, slug
from bnstudy.report.panels import panels
from bnstudy.report.reproductions import ReproductionResult, reproduce
from bnstudy.report.wording import count_statuses

TUNED_BY = {
    "accuracy": "validation accuracy at the end of training",
    "best_accuracy": "highest validation accuracy during training",
    "lowest": "metric itself, which does not read test images",
}
"""What chooses learning rates, by `Metric.tuned_by`."""


@dataclass(frozen=True)
class PanelSection:
    """One model on one dataset, with all of its figures."""

    name: str
    rows: list[dict[str, Any]]
    images: list[Image]


@dataclass(frozen=True)
class StudyPart:
    """A study in a report, beside its verdicts.

    study: without its measurements, which may be large. report: the command that draws the report of the study alone.
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


@dataclass(frozen=True)
class ClaimSection:
    """A claim in a report.

    part: the study that judges it. effect: the figure of its effect. images: others that show it; elsewhere: those
    that are in the section of an earlier claim.
    """

    claim: Claim
    summary: str
    verdicts: list[Verdict]
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
    def primary(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.contrast.is_primary]

    @property
    def smallest_effect(self) -> str:
        """`"1.25"`, or `"1 (Digits), 0.5 (MNIST)"` where it differs between datasets."""
        by_data = {verdict.contrast.case.data: f"{verdict.contrast.delta:g}" for verdict in self.verdicts}
        if len({*by_data.values()}) == 1:
            return next(iter(by_data.values()))
        return ", ".join(f"{delta} ({data})" for data, delta in by_data.items())

    @property
    def rates(self) -> list[dict[str, str]]:
        """The learning rates of each case in each view; empty before training, where they do not matter."""
        trained = [verdict for verdict in self.verdicts if verdict.contrast.view != "before_training"]
        return [_rates_row(verdict) for verdict in trained if any(verdict.contrast.grids.values())]

    @property
    def rates_note(self) -> str:
        views = {verdict.contrast.view for verdict in self.verdicts}
        if views <= {"fixed_rate"}:
            return "Only one learning rate was tried: nothing was chosen."
        if views <= {"all_rates", "before_training"}:
            return "The metric is one number of all learning rates: nothing is chosen."
        chosen = f"For each seed all other seeds choose it, by the {TUNED_BY[self.claim.measure.tuned_by]}"
        same = "; the same learning rate is that of the side without" if "same_rate" in views else ""
        return f"How many seeds are evaluated at which rate. {chosen}{same}."

    @property
    def lacks_image_errors(self) -> bool:
        """Whether a standard error of the test images belongs beside the effects, and cannot be given."""
        about_images = bool(self.claim.measure.images)
        return about_images and any(v.interval and math.isnan(v.contrast.image_error) for v in self.verdicts)

    @property
    def status(self) -> str:
        """That of all cases in the primary view; empty where they differ."""
        found = {verdict.status for verdict in self.primary}
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
    reproduction = reproduce(study, config_dirs)
    prefix = f"{study.name}-" if several else ""
    published = (
        draw_image(reproduction.draw, f"{prefix}published-{study.name}", taken, study.name) if reproduction else None
    )
    palette, figures = Palette.of(study.runs), load_figures(config_dirs)
    sections = [
        PanelSection(
            panel.name, summary.arm_rows(panel.runs), panel_images(panel, palette, figures, taken, kinds, prefix)
        )
        for panel in panels(study)
    ]
    return StudyPart(
        study=replace(study, metrics=study.metrics[:0].copy(), timing=study.timing[:0].copy(), test_correct={}),
        report=report,
        missing=missing,
        missing_others=others,
        facts=summary.facts(study),
        # The findings of a reproduction are in its table; the accuracy of its arms is not the point.
        findings=reproduction.findings if reproduction else [] if several else summary.findings(study),
        cautions=summary.cautions(study),
        diverged=summary.diverged_lines(study),
        sections=sections,
        costs=[] if several else summary.probe_overhead(study.runs),
        reproduction=reproduction,
        reproduction_images=[published] if published else [],
    )


def claim_sections(found: Iterable[Verdict], parts: Sequence[StudyPart], taken: set[str]) -> list[ClaimSection]:
    """One for each claim, in order; a figure that several claims name is in the section of the first."""
    by_name, shown, sections = {part.study.name: part for part in parts}, set[str](), []
    for _, group in groupby(found, key=lambda v: v.contrast.claim.name):
        of_claim = list(group)
        claim, part = of_claim[0].contrast.claim, by_name[of_claim[0].contrast.study]
        all_images = [i for section in part.sections for i in section.images]
        named = sorted((i for i in all_images if i.kind in claim.figures), key=lambda i: claim.figures.index(i.kind))
        effect = draw_image(partial(draw_effect, of_claim), f"effect-{claim.name}", taken)
        sections.append(
            ClaimSection(
                claim, summarize_claim(of_claim), of_claim, find_counterevidence(of_claim),
                sorted({run_id for v in of_claim for run_id in v.contrast.run_ids}), part, effect,
                images=[i for i in named if i.name not in shown],
                elsewhere=[i for i in named if i.name in shown],
            )
        )  # fmt: skip
        shown |= {i.name for i in named}
    return sections


def networks_image(found: Sequence[Verdict], taken: set[str]) -> Image | None:
    """The claims of a study side by side; None if it has one claim or one network."""
    return draw_image(partial(draw_networks, found), "networks", taken)


def summarize_claim(of_claim: Sequence[Verdict]) -> str:
    """The result of one claim in its primary view; where all cases have one status, the words that follow it."""
    primary = [verdict for verdict in of_claim if verdict.contrast.is_primary]
    if len(primary) == 1:
        return f"for {primary[0].result}"
    view = " or ".join(dict.fromkeys(verdict.contrast.view_name for verdict in primary))
    if len({verdict.status for verdict in primary}) == 1:
        return f"in all {len(primary)} cases, {view}."
    return f"Of {len(primary)} cases, {view}: {', '.join(f'{s} in {n}' for s, n in count_statuses(primary))}."


def _rates_row(verdict: Verdict) -> dict[str, str]:
    """How many seeds are evaluated at each learning rate of either side, and the grids, in words."""
    c = verdict.contrast
    with_, without = (describe_rates(c.rates.get(side, {})) for side in SIDES)
    grids = {side: describe_grid(grid) for side, grid in c.grids.items() if grid}
    same = len({*grids.values()}) == 1
    grid = next(iter(grids.values())) if same else "; ".join(f"{side} it {text}" for side, text in grids.items())
    if dropped := sorted({rate for rates in c.dropped.values() for rate in rates}):
        grid += f"; left out, as not tried with all seeds: {', '.join(f'{rate:g}' for rate in dropped)}"
    return {"case": verdict.case, "view": c.view_name, "with_": with_, "without": without, "grid": grid}


def describe_grid(rates: Sequence[float]) -> str:
    """`"7 rates: 0.1, 0.178, 0.316, ..."`."""
    return f"{len(rates)} {'rate' if len(rates) == 1 else 'rates'}: {', '.join(f'{rate:g}' for rate in rates)}"
