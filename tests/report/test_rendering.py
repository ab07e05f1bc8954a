from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from bnstudy.claims.verdicts import Verdict, judge
from bnstudy.report.rendering import escape_markdown, sort_value, survival
from bnstudy.report.report import write_report
from bnstudy.validation import ConfigError
from tests import sweeps, synthetic
from tests.report.pages import files
from tests.synthetic import Run

pytestmark = pytest.mark.usefixtures("blank_figures")


def test_the_temporary_files_of_a_killed_report_are_removed(tmp_path: Path) -> None:
    synthetic.write(tmp_path, [Run(total=20)])
    folder = tmp_path / "reports" / "all"
    (folder / "figures").mkdir(parents=True)
    abandoned = [folder / ".report.md.0123456789abcdef", folder / "figures" / ".curves.svg.0123456789abcdef"]
    mine = folder / ".mine.md"
    for path in (*abandoned, mine):
        path.touch()
        os.utime(path, (0, 0))
    write_report(tmp_path)
    assert [path.exists() for path in (*abandoned, mine)] == [False, False, True]


@pytest.mark.parametrize("linked", ["reports", "reports/s", "reports/s/figures", "studies/s/quick/reported"])
def test_a_report_writes_and_deletes_nothing_through_a_symbolic_link(tmp_path: Path, linked: str) -> None:
    store, home = tmp_path / "store", tmp_path / "home"
    synthetic.plan(store, "s", synthetic.write(store, [Run(total=20)]))
    home.mkdir()
    for name in ("index.html", "curves-mlp-on-digits.svg", "old.png"):
        (home / name).write_text("mine")
    link = store / linked
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(home)
    before = files(home)
    if linked.startswith("reports"):
        with pytest.raises(ConfigError, match=rf"^{link} is a symbolic link"):
            write_report(store, "s")
    else:
        write_report(store, "s")  # without a mark
    assert files(home) == before


@pytest.mark.parametrize("blocked", ["reports", "reports/all", "reports/all/figures"])
def test_a_file_in_the_way_is_named(tmp_path: Path, blocked: str) -> None:
    synthetic.write(tmp_path, [Run(total=20)])
    path = tmp_path / blocked
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with pytest.raises(ConfigError, match=rf"cannot be written .*: {path} is a file, not a folder"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("value", "text"),
    [("a_b", r"a\_b"), ("a\n# b", r"a \# b"), ("<b>&", "&lt;b&gt;&amp;"), ("- x|y", r"\- x\|y"), (3, "3")],
)
def test_markdown_text(value: object, text: str) -> None:
    assert escape_markdown(value) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [("97.2%", "97.2"), ("-3.1 (-4 to 2) x", "-3.1"), ("1e-05", "1e-05"), ("at least 4.8 (2 to 9)", "4.8"), ("-", "")],
)
def test_cells_are_sorted_by_their_first_number(text: str, value: str) -> None:
    assert sort_value(text) == value


def test_a_verdict_survives_or_not_and_an_inconclusive_case_does_neither() -> None:
    (stands,) = of_contrast(*[1.0] * 10)
    (open_,) = of_contrast(*[0.0, 1.0] * 5)
    assert [survival(v) for v in (stands, replace(stands, p_holm=0.06), open_)] == ["yes", "no", "-"]


def of_contrast(*d: float, **changes: object) -> list[Verdict]:
    return [judge(sweeps.contrast_of([*d], **changes))]
