"""The cards of a report: for each claim its verdicts, figures, sentences, and what counts against it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

from bnstudy.claims.cases import name_values
from bnstudy.claims.claim import Claim, Status
from bnstudy.claims.contrasts import SIDES
from bnstudy.claims.counterevidence import find_counterevidence
from bnstudy.claims.numbers import same_decimals
from bnstudy.claims.verdicts import Verdict, describe_rates
from bnstudy.report import wording
from bnstudy.report.figures.effects import draw_effect
from bnstudy.report.images import Image, draw_image, slug
from bnstudy.report.page import StudyPart
from bnstudy.report.wording import count_statuses

TUNED_BY = {
    "accuracy": "validation accuracy at the end of training",
    "best_accuracy": "highest validation accuracy during training",
    "lowest": "metric itself, which does not read test images",
}
"""What chooses learning rates, by `Metric.tuned_by`."""


@dataclass(frozen=True)
class Card:
    """A claim in a report.

    part: the study that judges it. effect: the figure of its effect. images: others that show it, the most telling
    first; elsewhere: those that are in the card of an earlier claim.
    """

    claim: Claim
    title: str
    sentences: list[str]
    verdicts: list[Verdict]
    counterevidence: list[str]
    run_ids: list[str]
    part: StudyPart
    effect: Image
    images: list[Image] = field(default_factory=list)
    elsewhere: list[Image] = field(default_factory=list)

    @property
    def id(self) -> str:
        return claim_id(self.claim)

    @property
    def primary(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.contrast.is_primary]

    @property
    def sides(self) -> str:
        """Which runs are compared."""
        with_, without = name_values(self.claim.with_), name_values(self.claim.without or {})
        return f"With: {with_}. " + (f"Without: {without}." if without else f"Reference: {self.claim.reference:g}.")

    @property
    def smallest_effect(self) -> str:
        """`"1.25"`, or `"1 (Digits), 0.5 (MNIST)"` where it differs between datasets."""
        by_data = {verdict.contrast.case.data: f"{verdict.contrast.delta:g}" for verdict in self.verdicts}
        if len({*by_data.values()}) == 1:
            return next(iter(by_data.values()))
        return ", ".join(f"{delta} ({data})" for data, delta in by_data.items())

    @property
    def means(self) -> list[tuple[str, str]]:
        """Of each verdict the means with and without, with the same decimals."""
        texts = same_decimals([mean for verdict in self.verdicts for mean in verdict.contrast.means], most=4)
        return list(zip(texts[::2], texts[1::2], strict=True))

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

    @property
    def statuses(self) -> list[tuple[Status, int]]:
        """The statuses of all cases in the primary view, and how often each occurs."""
        return count_statuses(self.primary)


def claim_id(claim: Claim) -> str:
    """The id of a claim's card on every page."""
    return f"claim-{slug(claim.name)}"


def claim_cards(found: Iterable[Verdict], part: StudyPart, taken: set[str]) -> list[Card]:
    """One for each claim, in order."""
    by_claim = [list(group) for _, group in groupby(found, key=lambda v: v.contrast.claim.name)]
    figures = divide_figures([of_claim[0].contrast.claim for of_claim in by_claim], part)
    return [
        Card(
            of_claim[0].contrast.claim, wording.claim_title(of_claim), wording.claim_sentences(of_claim),
            of_claim, find_counterevidence(of_claim),
            sorted({run_id for v in of_claim for run_id in v.contrast.run_ids}), part,
            draw_image(partial(draw_effect, of_claim), f"effect-{of_claim[0].contrast.claim.name}", taken),
            images=own, elsewhere=elsewhere,
        )
        for of_claim, (own, elsewhere) in zip(by_claim, figures, strict=True)
    ]  # fmt: skip


def divide_figures(claims: Sequence[Claim], part: StudyPart) -> list[tuple[list[Image], list[Image]]]:
    """For each claim the figures in its card, and those that it names and that are in the card of another.

    Each claim gets the first that it names and no earlier claim got so; the others go to the first that names them.
    """
    every = [image for section in part.sections for image in section.images]
    named = [
        sorted((i for i in every if i.kind in claim.figures), key=lambda i: claim.figures.index(i.kind))
        for claim in claims
    ]
    owner: dict[str, int] = {}
    for nth, images in enumerate(named):
        if telling := next((image for image in images if image.name not in owner), None):
            owner[telling.name] = nth
    for nth, images in enumerate(named):
        for image in images:
            owner.setdefault(image.name, nth)
    own = [[image for image in images if owner[image.name] == nth] for nth, images in enumerate(named)]
    return [(own[nth], [i for i in images if owner[i.name] != nth]) for nth, images in enumerate(named)]


def _rates_row(verdict: Verdict) -> dict[str, str]:
    """How many seeds are evaluated at each learning rate of either side, and the grids, in words."""
    c = verdict.contrast
    with_, without = (describe_rates(c.rates.get(side, {})) for side in SIDES)
    grids = {side: describe_grid(grid) for side, grid in c.grids.items() if grid}
    same = len({*grids.values()}) == 1
    by_side = "; ".join(f"{c.name_of(side)} {text}" for side, text in grids.items())
    grid = next(iter(grids.values())) if same else by_side
    if dropped := sorted({rate for rates in c.dropped.values() for rate in rates}):
        grid += f"; left out, as not tried with all seeds: {', '.join(f'{rate:g}' for rate in dropped)}"
    return {"case": verdict.case, "view": c.view_name, "with_": with_, "without": without, "grid": grid}


def describe_grid(rates: Sequence[float]) -> str:
    """`"7 rates: 0.1, 0.178, 0.316, ..."`."""
    return f"{len(rates)} {'rate' if len(rates) == 1 else 'rates'}: {', '.join(f'{rate:g}' for rate in rates)}"
