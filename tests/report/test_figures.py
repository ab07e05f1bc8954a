from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from bnstudy.claims.frames import StudyData, load_study
from bnstudy.claims.verdicts import Verdict, verdicts
from bnstudy.report.figures import FIGURES, Palette, draw_panel, style
from bnstudy.report.figures.curves import draw_curves
from bnstudy.report.figures.effects import MOST, draw_effect
from bnstudy.report.figures.layers import draw_dead_units, draw_gradients
from bnstudy.report.figures.rates import draw_rates
from bnstudy.report.transforms import Panel, panels
from tests import sweeps, synthetic
from tests.synthetic import Run


def one_panel(folder: Path, runs: list[Run]) -> tuple[Panel, Palette]:
    synthetic.write(folder, runs)
    study = load_study(folder)
    return panels(study)[0], Palette.of(study.runs)


def families(*rows: tuple[str, str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["norm", "rest"])
    family = pd.Categorical(table["norm"] + table["rest"], categories=table["norm"] + table["rest"], ordered=True)
    return table.assign(norm_label=table["norm"], family=family)


def test_the_baseline_is_grey_and_nothing_else_is() -> None:
    looks = Palette.of(families(("NoNorm", ""), ("BatchNorm", ""), ("LayerNorm", ""))).looks
    assert looks["NoNorm"].colour == style.BASELINE_COLOUR
    assert looks["BatchNorm"].colour != looks["LayerNorm"].colour
    assert style.BASELINE_COLOUR not in (looks["BatchNorm"].colour, looks["LayerNorm"].colour)


def test_no_two_families_look_alike() -> None:
    shaded = Palette.of(families(*((n, f"g={g}") for n in ("NoNorm", "BatchNorm") for g in range(5)))).looks
    many = Palette.of(families(*(("BatchNorm", f"g={g}") for g in range(20)))).looks
    for looks in (shaded, many):
        assert len({(look.colour, str(look.line)) for look in looks.values()}) == len(looks)


def test_arms_of_one_family_differ_in_their_line() -> None:
    palette = Palette({"a": style.Look("#000000")})
    looks = palette.of_arms(pd.DataFrame({"arm": ["a1", "a2"], "family": ["a", "a"]}))
    assert looks["a1"].colour == looks["a2"].colour
    assert looks["a1"].line != looks["a2"].line


def test_a_sweep_has_all_figures(sweep: StudyData) -> None:
    (panel,) = panels(sweep)
    with style.styled():
        drawn = list(draw_panel(panel, Palette.of(sweep.runs)))
    assert [d.kind for d in drawn] == ["learning-rates", "curves", "gradients", "dead-units", "dead-map"]
    assert set(FIGURES) >= {d.kind for d in drawn}
    best = sweep.runs.query("arm == 'NoNorm, lr=0.1'")["test_accuracy"].mean()
    assert f"NoNorm {100 * best:.1f}% at its chosen rate 0.1" in drawn[0].alt
    assert all("MLP on Digits" in d.alt for d in drawn)


def test_only_the_kinds_asked_for_are_drawn(sweep: StudyData) -> None:
    (panel,) = panels(sweep)
    with style.styled():
        drawn = list(draw_panel(panel, Palette.of(sweep.runs), ("dead-map", "learning-rates", "cosines")))
    assert [d.kind for d in drawn] == ["learning-rates", "dead-map"]


def test_figures_without_measurements_are_left_out(tmp_path: Path) -> None:
    panel, palette = one_panel(tmp_path, [Run(dead=False)])
    assert draw_rates(panel, palette) is None
    assert draw_dead_units(panel, palette) is None
    assert draw_gradients(panel, palette) is not None


def test_every_diverged_run_is_marked_against_the_learning_rate(sweep: StudyData) -> None:
    (panel,) = panels(sweep)
    drawn = draw_rates(panel, Palette.of(sweep.runs))
    assert drawn is not None
    marked = sum(len(line.get_xdata()) for line in drawn.figure.axes[0].lines if line.get_marker() == "x")
    assert marked == sweep.runs["diverged"].sum()


def test_curves_carry_the_means_over_seeds(two_models: StudyData) -> None:
    panel = panels(two_models)[0]
    drawn = draw_curves(panel, Palette.of(two_models.runs))
    assert drawn is not None
    last = {round(line.get_ydata()[-1], 6) for line in drawn.figure.axes[4].lines if len(line.get_xdata()) > 2}
    means = panel.runs.groupby("arm", observed=True)["final.test_accuracy"].mean()
    assert last == {round(100 * m, 6) for m in means}


@pytest.mark.parametrize(
    "runs",
    [
        [Run()],
        [Run(seed=s, diverged_at=s + 1) for s in range(2)],
        [Run(lr=lr, diverged_at=1) for lr in (1.0, 10.0, 100.0)],
        [Run("_Odd$x$"), Run("B--C", lr=0.3)],
    ],
    ids=["one run", "all diverged", "all rates diverged", "odd names"],
)
def test_any_store_can_be_drawn(tmp_path: Path, runs: list[Run]) -> None:
    panel, palette = one_panel(tmp_path, runs)
    with style.styled():
        for drawn in draw_panel(panel, palette):
            assert style.render(drawn.figure, "svg").startswith(b"<?xml")


# ------------------------------------------------------------------------------------------------ effects of claims


def of_claim(claim: str, **changes) -> list[Verdict]:
    return verdicts(sweeps.of(claims=(claim,), **changes))


@pytest.mark.parametrize(("claim", "scale"), [("dead_relus", "linear"), ("faster_convergence", "log")])
def test_every_seed_and_the_interval_are_in_the_figure_of_an_effect(claim: str, scale: str) -> None:
    found = of_claim(claim, fewer=0.1, faster=1.5)
    with style.styled():
        drawn = draw_effect(found)
    (ax,) = drawn.figure.axes
    in_unit = found[0].contrast.claim.in_unit
    dots = [sorted(line.get_xdata()) for line in ax.lines if line.get_marker() == "o"]
    assert dots == [pytest.approx(sorted(map(in_unit, v.contrast.d))) for v in found]
    bars = [list(line.get_xdata()) for line in ax.lines if line.get_linewidth() == 2.2]
    assert bars == [pytest.approx([in_unit(v.judged.low), in_unit(v.judged.high)]) for v in found]
    assert ax.get_xscale() == scale
    assert all(v.judged.status in drawn.alt for v in found)


def test_what_cannot_be_compared_is_in_the_figure_of_an_effect_too() -> None:
    study = sweeps.of(claims=("dead_relus",))
    alone = study.runs["norm"] == "BatchNorm"
    found = verdicts(replace(study, runs=study.runs[alone]))
    with style.styled():
        drawn = draw_effect(found)
        assert style.render(drawn.figure, "svg").startswith(b"<?xml")
    assert "INCONCLUSIVE" in drawn.alt


def test_of_many_cases_only_one_view_is_drawn() -> None:
    models = tuple(f"Net{i:02d}" for i in range(MOST // 2 + 1))
    found = of_claim("dead_relus", models=models, fewer=0.1)
    assert draw_effect(found).alt.count(" on Digits, each at its best") == len(models)
    assert "same learning rate" not in draw_effect(found).alt
