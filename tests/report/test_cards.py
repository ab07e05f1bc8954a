from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bnstudy.claims.contrasts import Contrast
from bnstudy.claims.verdicts import Verdict, as_json, judge
from bnstudy.report.cards import claim_cards, divide_figures
from bnstudy.report.images import Image
from bnstudy.report.page import PanelSection, StudyPart
from bnstudy.report.rendering import case_text
from bnstudy.report.report import write_report
from bnstudy.report.result import ReportResult
from tests import sweeps, synthetic
from tests.report.pages import claim_file

pytestmark = pytest.mark.usefixtures("blank_figures")


def of_contrast(*d: float, **changes: object) -> list[Verdict]:
    return [judge(sweeps.contrast_of([*d], **changes))]


@pytest.mark.parametrize(
    ("view", "note"),
    [
        (
            "best_rate",
            "How many seeds are evaluated at which rate. For each seed all other seeds choose it, by the valid",
        ),
        ("fixed_rate", "Only one learning rate was tried: nothing was chosen."),
        ("all_rates", "The metric is one number of all learning rates: nothing is chosen."),
    ],
)
def test_the_rates_of_a_claim_are_described_by_view(view: str, note: str) -> None:
    made = sweeps.contrast_of([1.0] * 10)
    over_all = {"metric": "largest_tolerated_rate", "scale": "log_ratio", "delta": 2, "views": ("all_rates",)}
    contrast = replace(
        made, claim=replace(made.claim, **(over_all if view == "all_rates" else {})), view=view,
        rates={"with": {0.1: 9, 1.0: 1}, "without": {0.1: 10}}, grids={"with": (0.1, 1.0), "without": (0.1,)},
    )  # fmt: skip
    (section,) = claim_cards([judge(contrast)], part(contrast), set())
    assert section.rates_note.startswith(note)
    (row,) = section.rates
    assert (row["with_"], row["without"]) == ("0.1 (9 seeds) or 1 (1)", "0.1")
    assert row["grid"] == "with it 2 rates: 0.1, 1; without it 1 rate: 0.1"


def part(contrast: Contrast) -> StudyPart:
    study = replace(sweeps.of(seeds=1), name=contrast.study)
    return StudyPart(study, "", [], 0, [], [], [], [], [], [], None, [])


def test_cases_at_a_fixed_rate_are_never_best_against_best() -> None:
    at_one = replace(sweeps.contrast_of([1.0] * 10), view="fixed_rate", rates={"with": {0.5: 10}, "without": {0.5: 10}})
    fixed, best = judge(at_one), judge(sweeps.contrast_of([1.0] * 10))
    assert case_text(fixed) == "MLP on Digits, at a fixed learning rate, 0.5"
    assert case_text(best) == "MLP on Digits"


def test_the_error_of_the_test_images_is_beside_an_effect_on_accuracy() -> None:
    known, unknown = of_contrast(*[1.0] * 10, image_error=0.314, images=359, steps=200), of_contrast(*[1.0] * 10)
    assert known[0].image_error == "0.31 (standard error of the 359 test images), after 200 steps"
    assert "10 seeds; 0.31 (standard error of the 359 test images), after 200 steps." in known[0].sentence
    assert unknown[0].image_error == "unknown: these runs did not record which test images they got right"
    assert unknown[0].sentence.endswith("10 seeds.")
    lacking = [claim_cards(v, part(v[0].contrast), set())[0].lacks_image_errors for v in (known, unknown)]
    assert lacking == [False, True]


def test_an_interval_with_slack_is_marked_wherever_it_is_shown() -> None:
    (verdict,) = of_contrast(*[1.0, 1.1] * 6, slack=0.1)
    assert verdict.interval == "1.1 (0.92 to 1.2, widened by a grid step)"
    (section,) = claim_cards([verdict], part(verdict.contrast), set())
    assert "the thin parts are the step" in section.effect.caption
    assert "widened by a grid step" in section.effect.inline
    assert as_json([verdict])[0]["interval_is"] == "95%, widened by a grid step"


def test_the_figures_of_a_claim_are_in_its_card_only(result: ReportResult) -> None:
    text = result.index.read_text()
    section = text[text.index('id="claim-higher-learning-rates"') : text.index('id="arms"')]
    assert 'id="figure-effect-higher-learning-rates"' in section
    assert 'id="figure-learning-rates-mlp-on-digits"' in section
    assert text.count('id="figure-learning-rates-mlp-on-digits"') == 1
    assert "What counts against it" in section
    assert "bnstudy-report study=lr_tolerance scale=quick" in section


def test_a_figure_of_two_claims_is_in_the_card_of_the_first(tmp_path: Path) -> None:
    runs = synthetic.lr_sweep(seeds=2, total=40)
    own = claim_file(tmp_path / "claims", statement="Another one.", order=1)
    ids = synthetic.write(tmp_path, runs)
    synthetic.plan(tmp_path, "s", ids, claims=["higher_learning_rates", "mine"])
    text = write_report(tmp_path, "s", claim_dirs=[own]).index.read_text()
    assert text.index("Another one") < text.index("tolerates higher")
    assert text.count('id="figure-learning-rates-mlp-on-digits"') == 1
    assert text.count('href="#figure-learning-rates-mlp-on-digits"') == 1


def test_each_claim_gets_the_first_figure_that_no_earlier_claim_shows() -> None:
    names, figures = ("a1", "a2", "b1"), (("a", "b"), ("a",), ("b", "a"), ("c",))
    images = [Image(name, name[0], "", "", "", b"", b"", b"") for name in names]
    study = replace(part(sweeps.contrast_of([1.0])), sections=[PanelSection("p", [], images)])
    claims = [replace(sweeps.contrast_of([1.0]).claim, figures=kinds) for kinds in figures]
    divided = [([i.name for i in own], [i.name for i in others]) for own, others in divide_figures(claims, study)]
    assert divided == [(["a1"], ["a2", "b1"]), (["a2"], ["a1"]), (["b1"], ["a1", "a2"]), ([], [])]
