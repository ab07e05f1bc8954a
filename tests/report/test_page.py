"""The pages of reports in a real browser: Debian's Chromium, driven by Playwright; skipped where there is none."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bnstudy.claims.verdicts import STATUSES
from bnstudy.report.compare import write_comparison
from bnstudy.report.report import write_report
from tests import synthetic
from tests.conftest import leave_figures_blank
from tests.synthetic import Run

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]

PAGES = ("one", "all", "two")
WIDTHS = (390, 500, 1280)
HOSTILE = "<script>alert(1)</script><img src=https://example.org/x.png onerror=alert(2)>"
LEAST_CONTRAST = 4.5

BACKGROUND = """
element => {
  const style = getComputedStyle(element);
  let behind = element;
  while (behind && getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
  return [style.color, getComputedStyle(behind ?? document.body).backgroundColor];
}
"""


@dataclass
class PageLog:
    """The requests and errors of a page."""

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report on a study that lacks a run, that on all studies, and a comparison."""
    folder = tmp_path_factory.mktemp("pages")
    runs = synthetic.lr_sweep(seeds=12, total=60, rates=synthetic.FINE_RATES)
    synthetic.write(folder, [r for r in runs if (r.norm, r.lr, r.seed) != ("BatchNorm", 1.78, 3)])
    claims = ["faster_convergence", "higher_learning_rates"]
    synthetic.plan(folder, "lr_tolerance", [r.run_id for r in runs], title="Does it tolerate more?", claims=claims)
    synthetic.plan(folder, "architectures", synthetic.write(folder, synthetic.two_models()), claims=["dead_relus"])
    with pytest.MonkeyPatch.context() as patch:
        leave_figures_blank(patch)  # that page shows none
        index = write_report(folder, "all").index
    return {
        "one": write_report(folder, "lr_tolerance").index,
        "all": index,
        "two": write_comparison(folder, "BatchNorm, lr=1 vs NoNorm, lr=0.1", "lr_tolerance").index,
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield running
        running.close()


@contextmanager
def opened(browser: Any, path: Path, width: int = 1280, **context: Any) -> Iterator[tuple[Any, PageLog]]:
    """The page as opened from disk, without a network."""
    seen = PageLog()
    made = browser.new_context(viewport={"width": width, "height": 800}, offline=True, **context)
    page = made.new_page()
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("console", lambda message: seen.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("dialog", lambda dialog: (seen.errors.append(dialog.message), dialog.dismiss()))
    page.goto(path.as_uri())
    yield page, seen
    made.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_makes_no_request_and_no_error(browser, pages, name):
    with opened(browser, pages[name]) as (page, seen):
        page.wait_for_load_state("networkidle")
        assert page.locator("h1").is_visible()
        assert seen == PageLog([pages[name].as_uri()])


def test_hostile_names_run_no_script(browser, tmp_path):
    runs = [Run(norm, lr, s, data=HOSTILE) for norm in ("NoNorm", HOSTILE) for lr in (0.1, 1.0) for s in range(2)]
    synthetic.plan(tmp_path, "s", synthetic.write(tmp_path, runs), title=HOSTILE, claims=["higher_learning_rates"])
    path = write_report(tmp_path, "s").index
    with opened(browser, path) as (page, seen):
        page.wait_for_load_state("networkidle")
        assert page.locator("h1").inner_text() == HOSTILE
        assert page.locator("img").count() == 0
        assert seen == PageLog([path.as_uri()])


def column(page: Any, table: str, i: int) -> list[str]:
    return page.locator(f"{table} tbody tr > :nth-child({i})").all_inner_texts()


ARMS = "#arms-mlp-on-digits ~ .scroll table"


def test_numbers_are_sorted_as_numbers(browser, pages):
    with opened(browser, pages["one"]) as (page, _):
        header = page.locator(f"{ARMS} th", has_text="Test accuracy")
        before = column(page, ARMS, 2)
        assert {text[-1] for text in before} == {"%"}
        header.get_by_role("button").click()
        assert header.get_attribute("aria-sort") == "ascending"
        assert column(page, ARMS, 2) == sorted(before, key=lambda text: float(text[:-1]))
        header.get_by_role("button").press("Enter")
        assert header.get_attribute("aria-sort") == "descending"
        assert column(page, ARMS, 2) == sorted(before, key=lambda text: -float(text[:-1]))


def test_sorting_is_stable_and_puts_cells_without_a_number_last(browser, pages):
    with opened(browser, pages["one"]) as (page, _):
        arms, lost = column(page, ARMS, 1), column(page, ARMS, 5)
        rows = [(arm, float(n)) for arm, n in zip(arms, lost, strict=True) if n]
        button = page.locator(f"{ARMS} th", has_text="Diverged").get_by_role("button")
        for sign in (1, -1):
            button.click()
            expected = [arm for arm, _ in sorted(rows, key=lambda row: sign * row[1])]
            assert column(page, ARMS, 1)[: len(rows)] == expected
            assert not any(column(page, ARMS, 5)[len(rows) :])


@pytest.mark.parametrize("name", ["one", "all"])
def test_the_forest_is_sorted_as_one_table(browser, pages, name):
    with opened(browser, pages[name]) as (page, _):
        rows = page.locator(".forest tbody tr")
        statuses, count = rows.locator(".status").all_inner_texts(), rows.count()
        assert count == {"one": 2, "all": 4}[name]
        page.locator(".forest th", has_text="Verdict").get_by_role("button").click()
        assert rows.locator(".status").all_inner_texts() == sorted(statuses)
        page.locator(".forest th", has_text="Effect in multiples of the smallest of interest").get_by_role(
            "button"
        ).click()
        multiples = page.locator(".forest td.drawn").evaluate_all("all => all.map(c => Number(c.dataset.value || NaN))")
        known = [value for value in multiples if value == value]
        assert known == sorted(known) == multiples[: len(known)]
        assert page.locator(".forest .again").count() == 0


def test_every_row_of_the_forest_leads_to_a_card(browser, pages):
    for name in ("one", "all"):
        with opened(browser, pages[name]) as (page, _):
            links = page.locator(".forest tbody th a")
            targets = links.evaluate_all("all => all.map(link => link.href)")
            links.first.click()
            page.wait_for_url(targets[0])
            assert page.locator(":target").bounding_box()["y"] < 800
            for target in targets:
                page.goto(target)
                assert page.locator(":target").inner_text()


def test_a_strip_shows_each_seed_where_its_number_says(browser, pages):
    with opened(browser, pages["one"]) as (page, _):
        strip = page.locator(".forest .strip").first
        box, dots = strip.bounding_box(), strip.locator(".dot")
        assert dots.count() == 12
        for dot in dots.all():
            place = float(dot.get_attribute("cx").rstrip("%")) / 100
            seen = dot.bounding_box()
            assert seen["x"] + seen["width"] / 2 == pytest.approx(box["x"] + place * box["width"], abs=1)


def test_without_scripts_tables_are_plain_tables(browser, pages):
    with opened(browser, pages["one"], java_script_enabled=False) as (page, _):
        assert page.locator("thead button").count() == 0
        assert page.locator("table").count() > 3
        assert page.locator(".forest").is_visible()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["one", "two"])
def test_each_figure_is_shown_once_as_it_is_drawn_for_its_width_and_has_a_text(browser, pages, name, width):
    with opened(browser, pages[name], width) as (page, _):
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.locator("figure").count() > 0
        for figure in page.locator("figure").all():
            is_beside = figure.evaluate("figure => Boolean(figure.closest('.evidence'))")
            assert figure.locator(".card").count() == 2
            assert figure.locator(".card:visible").count() == 1
            shown = figure.locator(f".card.{'narrow' if width == 390 or is_beside else 'wide'} > svg")
            box = shown.bounding_box()
            assert min(box["width"], box["height"]) > 100
            assert len(shown.get_attribute("aria-label")) > 40


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_the_page_fits_its_window(browser, pages, name, width):
    with opened(browser, pages[name], width) as (page, _):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        narrow = ", .cards :is(th, td):visible" if width == 390 else ""  # wider ones scroll by themselves
        for cell in page.locator(f".forest :is(th, td):visible{narrow}").all():
            box = cell.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_texts_have_enough_contrast(browser, pages, name, scheme):
    with opened(browser, pages[name], color_scheme=scheme) as (page, _):
        for status in STATUSES:  # also those that the page does not have
            spelled = f'<p><span class="status {status.lower()}">{status}</span></p>'
            page.locator("main").evaluate("(main, text) => main.insertAdjacentHTML('beforeend', text)", spelled)
        words = page.locator(
            ".status, .note, .caution, caption, figcaption, a, summary, dt, dd, th, td, h2, pre, .kicker, .provenance"
        )
        found = words.evaluate_all(
            f"all => [...new Set(all.map(e => JSON.stringify(({BACKGROUND})(e))))].map(JSON.parse)"
        )
        assert len(found) > 3
        assert {pair[1] for pair in found} != {"rgb(255, 255, 255)"} or scheme == "light"
        assert [pair for pair in found if contrast(*pair) < LEAST_CONTRAST] == []


def contrast(one: str, other: str) -> float:
    """Of two colours as CSS has them (WCAG 2)."""
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_folded_parts_are_open_in_print_but_for_ids_of_runs(browser, pages):
    with opened(browser, pages["one"]) as (page, _):
        folded, ids = page.locator("details .numbers").first, page.locator(".ids").first
        assert not folded.is_visible()
        page.emulate_media(media="print")
        assert folded.is_visible()
        assert not ids.is_visible()
        assert not page.locator("nav").is_visible()
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details:not([open]):not(.unprinted)").count() == 0
        assert not ids.is_visible()
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.locator("details[open]").count() == 0


def test_a_phone_shows_cards_with_the_names_of_their_numbers(browser, pages):
    with opened(browser, pages["one"], 390) as (page, _):
        assert page.locator(".cards thead").first.is_hidden()
        cell = page.locator(f"{ARMS} td[data-label='Test accuracy']").first
        assert "Test accuracy" in cell.evaluate("cell => getComputedStyle(cell, '::before').content")


@pytest.mark.parametrize("name", PAGES)
def test_no_text_of_a_phone_is_smaller_than_11_pixels(browser, pages, name):
    with opened(browser, pages[name], 390) as (page, _):
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        sizes = page.locator("body :visible").evaluate_all(
            "all => all.filter(e => !e.closest('figure svg') && [...e.childNodes].some(n => n.nodeType === 3 && "
            "n.textContent.trim())).map(e => parseFloat(getComputedStyle(e).fontSize))"
        )
        assert min(sizes) >= 11


def test_a_skip_link_leads_to_the_results(browser, pages):
    with opened(browser, pages["one"]) as (page, _):
        page.keyboard.press("Tab")
        link = page.locator(".skip")
        assert link.evaluate("link => link === document.activeElement")
        assert link.bounding_box()["x"] >= 0
        page.keyboard.press("Enter")
        assert page.locator("main").evaluate("main => main === document.activeElement")


def test_question_answer_verdicts_and_provenance_are_on_the_first_screen(browser, pages):
    with opened(browser, pages["one"]) as (page, _):
        for shown in ("h1", ".answer", ".forest", ".provenance"):
            box = page.locator(shown).bounding_box()
            assert box["y"] + box["height"] <= 800
