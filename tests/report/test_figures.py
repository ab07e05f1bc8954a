from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bnstudy.claims.claim import load_claims
from bnstudy.claims.contrasts import contrasts
from bnstudy.claims.frames import StudyData, load_study
from bnstudy.claims.numbers import two_digits
from bnstudy.claims.verdicts import Verdict, verdicts
from bnstudy.report.figures import Palette, ReportFigure, load_figures, style
from bnstudy.report.figures.effects import MOST, THICK, THIN, draw_effect, stack
from bnstudy.report.figures.facets import split_arms
from bnstudy.report.figures.learning_rates import good_rates
from bnstudy.report.figures.titles import percent
from bnstudy.report.panels import Panel, panels
from bnstudy.validation import ConfigError
from tests import sweeps, synthetic
from tests.synthetic import Run


def one_panel(folder: Path, runs: list[Run]) -> tuple[Panel, Palette]:
    synthetic.write(folder, runs)
    study = load_study(folder)
    return panels(study)[0], Palette.of(study.runs)


def draw(panel: Panel, palette: Palette, *kinds: str, folders: Sequence[Path] = ()) -> dict[str, ReportFigure]:
    """The figures of these kinds, or all, that the panel has measurements for."""
    with style.report_style():
        drawn = {k: draw(panel, palette) for k, draw in load_figures(folders).items() if not kinds or k in kinds}
    return {kind: figure for kind, figure in drawn.items() if figure}


def families(*rows: tuple[str, str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["norm", "rest"])
    family = pd.Categorical(table["norm"] + table["rest"], categories=table["norm"] + table["rest"], ordered=True)
    return table.assign(norm_label=table["norm"], family=family)


def test_only_the_baseline_is_grey() -> None:
    styles = Palette.of(families(("NoNorm", ""), ("BatchNorm", ""), ("LayerNorm", ""))).styles
    assert styles["NoNorm"].colour == style.BASELINE_COLOUR
    assert styles["BatchNorm"].colour != styles["LayerNorm"].colour
    assert style.BASELINE_COLOUR not in (styles["BatchNorm"].colour, styles["LayerNorm"].colour)


def test_no_two_families_have_the_same_line_style() -> None:
    shaded = Palette.of(families(*((n, f"g={g}") for n in ("NoNorm", "BatchNorm") for g in range(5)))).styles
    many = Palette.of(families(*(("BatchNorm", f"g={g}") for g in range(20)))).styles
    for styles in (shaded, many):
        assert len({(s.colour, str(s.line)) for s in styles.values()}) == len(styles)


def test_arms_of_one_family_differ_in_their_dash_pattern() -> None:
    palette = Palette({"a": style.LineStyle("#000000")})
    styles = palette.of_arms(pd.DataFrame({"arm": ["a1", "a2"], "family": ["a", "a"]}))
    assert styles["a1"].colour == styles["a2"].colour
    assert styles["a1"].line != styles["a2"].line


def test_a_sweep_of_learning_rates_has_its_figures_in_order(sweep: StudyData) -> None:
    (panel,) = panels(sweep)
    figures = draw(panel, Palette.of(sweep.runs))
    assert list(figures) == ["learning-rates", "curves", "gradients", "dead-units", "dead-map"]
    best = 1 - sweep.runs.query("arm == 'NoNorm, lr=0.1'")["test_accuracy"].median()
    at_best = f"NoNorm has its best mean validation accuracy at 0.1, with a median test error of {percent(best)}"
    assert at_best in figures["learning-rates"].alt
    assert all("MLP on Digits" in f.alt for f in figures.values())


def test_one_rate_without_dead_units_has_neither_figure(tmp_path: Path) -> None:
    panel, palette = one_panel(tmp_path, [Run(dead=False)])
    assert list(draw(panel, palette, "learning-rates", "dead-units", "gradients")) == ["gradients"]


def test_every_diverged_run_has_a_cross_at_its_learning_rate(sweep: StudyData) -> None:
    (panel,) = panels(sweep)
    (figure,) = draw(panel, Palette.of(sweep.runs), "learning-rates").values()
    crosses = sum(len(line.get_xdata()) for line in figure.figure.axes[0].lines if line.get_marker() == "x")
    assert crosses == sweep.runs["diverged"].sum()


def test_coordinates_of_an_svg_are_rounded_and_other_numbers_are_as_drawn(sweep: StudyData, monkeypatch) -> None:
    def render() -> str:
        drawn = draw(panels(sweep)[0], Palette.of(sweep.runs), "curves")["curves"]
        with style.report_style():
            return style.render(drawn.figure, "svg").decode()

    place, number = style.GEOMETRY, re.compile(r"\d+\.\d+")
    rounded = render()
    monkeypatch.setattr(style, "GEOMETRY", re.compile("(?!)"))  # matches nothing
    exact = render()
    mine, theirs = (number.findall(" ".join(place.findall(svg))) for svg in (rounded, exact))
    assert max(len(text.partition(".")[2]) for text in mine) == 2
    np.testing.assert_allclose([*map(float, mine)], [*map(float, theirs)], rtol=0, atol=0.00501)
    assert place.sub("", rounded) == place.sub("", exact)


def test_curves_end_at_the_mean_accuracy_over_seeds(two_models: StudyData) -> None:
    panel = panels(two_models)[0]
    (figure,) = draw(panel, Palette.of(two_models.runs), "curves").values()
    ends = {round(line.get_ydata()[-1], 6) for line in figure.figure.axes[2].lines if len(line.get_xdata()) > 2}
    means = panel.runs.groupby("arm", observed=True)["val_accuracy"].mean()
    assert ends == {round(100 * m, 6) for m in means}


def test_the_failed_share_is_drawn_below_the_errors(sweep: StudyData) -> None:
    (panel,) = panels(sweep)
    (figure,) = draw(panel, Palette.of(sweep.runs), "learning-rates").values()
    errors, failures = figure.figure.axes
    assert (errors.get_yscale(), failures.get_ylabel()) == ("log", "failed (%)")
    for line, (_, runs) in zip(failures.lines, sweep.runs.groupby("family", observed=True), strict=True):
        shares = [100 * at_rate["counts_as_guessing"].mean() for _, at_rate in runs.groupby("lr")]
        assert sorted(line.get_ydata()) == pytest.approx(sorted(shares))


def test_medians_of_errors_are_drawn(sweep: StudyData) -> None:
    (panel,) = panels(sweep)
    (figure,) = draw(panel, Palette.of(sweep.runs), "learning-rates").values()
    drawn = {round(float(y), 6) for line in figure.figure.axes[0].lines for y in line.get_ydata()}
    for _, runs in sweep.runs.groupby(["family", "lr"], observed=True):
        assert round(float(statistics.median(100 * (1 - runs["test_accuracy"]))), 6) in drawn


def test_good_rates_are_those_next_to_the_best() -> None:
    table = pd.DataFrame({"lr": [0.01, 0.1, 1.0, 10.0, 100.0], "error": [4.0, 9.0, 3.0, 4.0, 90.0]})
    assert good_rates(table, 5.0) == [1.0, 10.0]
    assert good_rates(table, 3.0) == [1.0]


def test_curves_show_the_rates_and_the_target_of_the_claim_on_speed(sweep: StudyData) -> None:
    (claim,) = load_claims(["faster_convergence"])
    found = contrasts(sweep, claim)
    (primary,) = (c for c in found if c.is_primary)
    (panel,) = panels(sweep, found)
    (figure,) = draw(panel, Palette.of(sweep.runs), "curves").values()
    targets = [text.get_position()[1] for text in figure.figure.axes[2].texts if text.get_text().startswith("target")]
    baseline = sweep.runs.query("family == 'NoNorm'").groupby("lr")["val_accuracy"].mean().max()
    assert targets == [pytest.approx(100 * 0.95 * baseline)]
    assert f"{95 * baseline:.1f}% on validation images" in figure.caption
    assert f"BatchNorm (lr={primary.rate_of('with'):g})" in figure.alt
    assert f"NoNorm (lr={primary.rate_of('without'):g})" in figure.alt
    assert all(two_digits(mean) in figure.title for mean in primary.means)


def test_settings_have_axes_of_their_own_where_each_has_several_norms(tmp_path: Path) -> None:
    runs = [Run(norm, batch_size=b, seed=s) for norm in ("NoNorm", "BatchNorm") for b in (8, 32) for s in range(2)]
    panel, palette = one_panel(tmp_path, runs)
    facets = split_arms(panel, palette)
    assert list(facets.groups) == ["batch_size=8", "batch_size=32"]
    assert [len(arms) for arms in facets.groups.values()] == [2, 2]
    assert list(facets.legend) == ["NoNorm", "BatchNorm"]
    alone, palette = one_panel(tmp_path / "alone", runs[:4])
    assert list(split_arms(alone, palette).groups) == [""]


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
def test_every_store_can_be_drawn(tmp_path: Path, runs: list[Run]) -> None:
    panel, palette = one_panel(tmp_path, runs)
    for figure in draw(panel, palette).values():
        with style.report_style():
            assert style.render(figure.figure, "svg").startswith(b"<?xml")


OWN_FIGURE = """
from matplotlib.figure import Figure
from bnstudy.report.figures import ReportFigure

def draw(panel, palette):
    return ReportFigure("Mine", "How to read it.", f"Nothing of {panel.name}.", Figure())
"""


def own_figure(folder: Path, name: str, text: str) -> Path:
    path = folder / "figure" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return folder


def test_a_figure_from_outside_the_package_is_drawn_in_its_order(sweep: StudyData, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_figures.py").write_text(OWN_FIGURE)
    own = own_figure(tmp_path / "my_conf", "mine", "_target_: my_figures.draw\norder: 15\n")
    own_figure(own, "curves", "_target_: my_figures.draw\n")  # instead of the one in conf/
    (panel,) = panels(sweep)
    figures = draw(panel, Palette.of(sweep.runs), "learning-rates", "mine", "curves", folders=[own])
    assert [(kind, figure.title == "Mine") for kind, figure in figures.items()] == [
        ("learning-rates", False),
        ("mine", True),
        ("curves", True),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("order: 1", r"mine.yaml has no _target_: it must name a class or function"),
        ("_target_: nowhere.draw", r"^figure/mine._target_=nowhere.draw cannot be imported: No module named 'nowhere'"),
        ("_target_: os.getcwd\norder: first", r"mine.yaml: order=first is not allowed: it must be a number."),
        ("_target_: [", r"^In .*mine.yaml: "),
    ],
)
def test_a_wrong_figure_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_figures([own_figure(tmp_path, "mine", text)])


def of_claim(claim: str, **changes) -> list[Verdict]:
    return verdicts(sweeps.of(claims=(claim,), **changes))


@pytest.mark.parametrize(("claim", "scale"), [("dead_relus", "linear"), ("faster_convergence", "log")])
def test_every_seed_and_the_interval_are_in_the_figure_of_an_effect(claim: str, scale: str) -> None:
    found = of_claim(claim, fewer=0.1, faster=1.5)
    with style.report_style():
        drawn = draw_effect(found)
    (ax,) = drawn.figure.axes
    in_unit = found[0].contrast.claim.in_unit
    dots = [sorted(line.get_xdata()) for line in ax.lines if line.get_marker() == "o"]
    assert dots == [pytest.approx(sorted(map(in_unit, v.contrast.d))) for v in found]
    for width in (THICK, THIN):
        bars = [list(line.get_xdata()) for line in ax.lines if line.get_linewidth() == width]
        assert bars == [pytest.approx([in_unit(v.low), in_unit(v.high)]) for v in found]
    assert ax.get_xscale() == scale
    assert all(v.status in drawn.alt for v in found)
    kind = "ratio" if scale == "log" else "difference"
    assert drawn.caption.startswith(f"Each dot is the {kind} of one seed")


def test_the_thin_part_of_an_interval_is_what_a_step_of_the_grid_adds() -> None:
    (verdict,) = of_claim("higher_learning_rates", limits=(0.1, 1.0))
    with style.report_style():
        (ax,) = draw_effect([verdict]).figure.axes
    thick, thin = (
        next(np.log(line.get_xdata()) for line in ax.lines if line.get_linewidth() == width) for width in (THICK, THIN)
    )
    assert verdict.contrast.slack > 0
    assert thin - thick == pytest.approx([-verdict.contrast.slack, verdict.contrast.slack])


def test_stacked_dots_do_not_overlap() -> None:
    x = np.sort(np.round(np.random.default_rng(1).normal(size=60), 1))
    places = np.column_stack([x, 0.1 * stack(x, 0.1)])
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    assert distances[~np.eye(len(x), dtype=bool)].min() > 0.0999


def test_dots_that_do_not_touch_stay_on_one_line() -> None:
    assert stack(np.array([0.0, 1.0, 2.0]), 0.9).tolist() == [0, 0, 0]
    assert stack(np.array([0.0, 0.0, 0.0, 1.0]), 0.9).tolist() == [0, 1, -1, 0]


def test_what_cannot_be_compared_is_in_the_figure_of_an_effect_too() -> None:
    study = sweeps.of(claims=("dead_relus",))
    alone = study.runs["norm"] == "BatchNorm"
    found = verdicts(replace(study, runs=study.runs[alone]))
    with style.report_style():
        drawn = draw_effect(found)
        assert style.render(drawn.figure, "svg").startswith(b"<?xml")
    assert "INCONCLUSIVE" in drawn.alt


def test_of_many_cases_only_one_view_is_drawn() -> None:
    models = tuple(f"Net{i:02d}" for i in range(MOST // 2 + 1))
    found = of_claim("dead_relus", models=models, fewer=0.1)
    assert draw_effect(found).alt.count(" on Digits, each at its best") == len(models)
    assert "same learning rate" not in draw_effect(found).alt
