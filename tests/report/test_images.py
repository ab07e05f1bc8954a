from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bnstudy.report.figures.colours import DARK_PAGE, in_the_dark
from bnstudy.report.images import LIST, choose_name, inline_svg, listed_images
from bnstudy.report.report import write_report
from tests import synthetic
from tests.synthetic import Run

pytestmark = pytest.mark.usefixtures("blank_figures")


def test_figures_of_an_earlier_report_are_removed(tmp_path: Path) -> None:
    synthetic.write(tmp_path, [Run(total=20)])
    figures = write_report(tmp_path).folder / "figures"
    first = {path.name for path in figures.glob("*.*g")}
    mine = figures / "mine.svg"
    mine.touch()
    synthetic.write(tmp_path, [Run(total=20, model="VGG")])
    (tmp_path / "runs" / Run(total=20).run_id / "summary.json").unlink()
    result = write_report(tmp_path)
    second = {path.name for path in figures.glob("*.*g")} - {"mine.svg"}
    assert first.isdisjoint(second)
    assert mine.exists()
    assert result.folder.name == "all"
    assert result.missing == 1


@pytest.mark.parametrize("listed", ['["../../../home.png", "/x.png", "kept.txt", 7]', '{"a": 1}', "7", "[", '[["x"]]'])
def test_a_list_of_figures_from_a_stranger_deletes_no_other_file(tmp_path: Path, listed: str) -> None:
    synthetic.write(tmp_path, [Run(total=20)])
    figures = tmp_path / "reports" / "all" / "figures"
    figures.mkdir(parents=True)
    (figures / "files.json").write_text(listed)
    kept = [tmp_path / "home.png", figures / "kept.txt"]
    for path in kept:
        path.touch()
    write_report(tmp_path)
    assert all(path.exists() for path in kept)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_list_of_figures_that_is_no_file_names_none(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / LIST)
    assert listed_images(tmp_path) == set()


def test_file_names_are_plain_and_distinct() -> None:
    taken: set[str] = set()
    assert [choose_name("a-B on ../ç", taken), choose_name("a-b ON", taken)] == ["a-b-on", "a-b-on-2"]


def test_inlined_drawings_keep_their_ids_to_themselves() -> None:
    svg = (
        '<?xml?><svg width="9pt" viewBox="0 0 9 9" height="9pt"><g id="p"/><use xlink:href="#p" clip="url(#p)"/></svg>'
    )
    element = inline_svg(svg, "f", 'a "b"')
    assert element.startswith('<svg viewBox="0 0 9 9" id="f-svg" ')
    assert 'role="img" aria-label="a &#34;b&#34;"' in element
    assert element.endswith('<g id="f-p"/><use xlink:href="#f-p" clip="url(#f-p)"/></svg>')


def test_inlined_drawings_have_other_colours_in_dark_mode() -> None:
    svg = (
        '<svg><path id="m0072b2" style="fill: #0072b2; stroke: none"/><text style="fill: #ffffff">#0072b2</text>'
        '<use href="#m0072b2"/></svg>'
    )
    element = inline_svg(svg, "f", "")
    assert '<path id="f-m0072b2" style="fill: var(--c0072b2, #0072b2); stroke: none"/>' in element
    assert ">#0072b2</text>" in element
    dark = dict(re.findall(r"(--c\w{6}): (#\w{6})", element))
    assert dark.keys() == {"--c0072b2", "--cffffff", "--c000000"}
    assert dark["--cffffff"] == DARK_PAGE
    assert dark["--c0072b2"] == in_the_dark("#0072b2") != "#0072b2"


def test_inlined_drawings_have_the_ids_that_something_refers_to_and_no_space_between_elements() -> None:
    svg = '<svg>\n <g id="a">\n  <path id="b" d="M 0 0"/>\n  <text>two words</text>\n </g>\n <use href="#b"/>\n</svg>'
    element = inline_svg(svg, "f", "")
    assert element.endswith('<g><path id="f-b" d="M 0 0"/><text>two words</text></g><use href="#f-b"/></svg>')
