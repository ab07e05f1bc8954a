"""A store from somebody else: its names and titles reach the page, the figures, the tables and the terminal as text."""

from __future__ import annotations

import csv
import io
import os
import xml.dom.minidom
from pathlib import Path

import pandas as pd
import pytest

from bnstudy.claims.frames import load_study
from bnstudy.report.report import write_report
from bnstudy.report.result import ReportResult
from bnstudy.report.tables import as_csv
from bnstudy.report.terminal import show_report
from bnstudy.store.runs import Store
from bnstudy.validation import printable
from tests import synthetic
from tests.report.pages import Page
from tests.synthetic import Run

NAMES = {
    "script": "<script>alert(1)</script>",
    "svg": "</svg></title><img src=x onerror=alert(1)>",
    "markdown": "`x`|**y**|[z](javascript:q)\n# no",
    "escapes": "\x1b[31mSUPPORTED\x1b[0m\x07\x00\x9b2J\u202etxt\r\nVerdict: SUPPORTED",
    "formula": '=HYPERLINK("http://x")',
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> ReportResult:
    """A report in which each name is that of a norm, and all of them together name the dataset and the study."""
    store, everything = tmp_path_factory.mktemp("hostile"), "\n".join(NAMES.values())
    runs = [Run(norm, data=everything, total=20, seed=seed) for norm in (*NAMES.values(), "NoNorm") for seed in (0, 1)]
    synthetic.plan(store, "s", synthetic.write(store, runs), title=everything)
    return write_report(store, "s")


def test_a_page_has_its_own_script_and_no_other_markup(hostile):
    page = Page((hostile.folder / "index.html").read_text())
    assert page.all("script") == [{}]
    assert not page.all("img")
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert "Content-Security-Policy" in [meta.get("http-equiv") for meta in page.all("meta")]
    markdown = (hostile.folder / "report.md").read_text()
    assert not any(text in markdown for text in ("<script", "<img", "\n# no", "[z](", "\x1b", "\x07", "\x00"))


def test_figures_are_valid_svg_without_control_characters(hostile):
    figures = sorted((hostile.folder / "figures").glob("*.svg"))
    assert figures
    for path in figures:
        xml.dom.minidom.parse(str(path))
        assert printable(path.read_text()) == path.read_text()
    assert any("\\x1b[31mSUPPORTED" in path.read_text() for path in figures)


def test_lines_for_the_terminal_show_control_characters_as_escapes(hostile):
    lines = show_report(hostile, io.StringIO()).splitlines()
    assert all(line.isprintable() for line in lines)
    assert any("\\x1b[31mSUPPORTED" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, Müller, 数, ½, “q”", "plain, Müller, 数, ½, “q”"),
        ("two\nlines", "two\nlines"),
        ("\x1b[2J\r\t\x00\x7f\x9b", "\\x1b[2J\\r\\t\\x00\\x7f\\x9b"),
        ("\u202e\u2028\ufeff\udc80", "\\u202e\\u2028\\ufeff\\udc80"),
        ("a\\x1b", "a\\x1b"),
    ],
)
def test_control_characters_are_shown_as_escapes(text, shown):
    assert printable(text) == shown


CELLS = ["=1+1", "+A1", "-A1", "@SUM(1)", "\t=1", "\r=1", "-1.5", "+3", "-inf", "plain", "a=b", "x\x1b[0m", ""]
SHOWN = ["'=1+1", "'+A1", "'-A1", "'@SUM(1)", "\\t=1", "\\r=1", "-1.5", "+3", "'-inf", "plain", "a=b", "x\\x1b[0m", ""]


def test_a_cell_that_a_spreadsheet_would_run_begins_with_an_apostrophe():
    runs = pd.DataFrame({"run_id": CELLS, "=cmd": -1.5, "kind": pd.Categorical(CELLS)})
    head, *rows = csv.reader(io.StringIO(as_csv(runs)))
    assert head == ["run_id", "'=cmd", "kind"]
    assert rows == [[shown, "-1.5", shown] for shown in SHOWN]


def test_a_table_without_such_cells_is_that_of_pandas():
    runs = pd.DataFrame(
        {"run_id": ["a", "b"], "n": [1, 2], "x": [0.1, None], "mixed": [1, "b"], "none": [None, 3], "l": [(1, 2), None],
         "flag": [True, None], "nan": [float("nan"), "t"]}
    )  # fmt: skip
    columns = ["run_id", *sorted({*runs} - {"run_id"})]
    assert as_csv(runs) == runs[columns].to_csv(index=False, lineterminator="\n")


def test_an_error_of_a_run_shows_no_file_outside_the_store(tmp_path: Path):
    runs = [Run(total=20, seed=seed) for seed in range(4)]
    secret, store = tmp_path / "secret", tmp_path / "store"
    secret.write_text("password")
    synthetic.plan(store, "s", [synthetic.write(store, runs[:1])[0], *(run.run_id for run in runs[1:])])
    folders = [Store(store).begin(run.run_id, run.spec).folder for run in runs[1:]]
    (folders[0] / "error.txt").symlink_to(secret)
    os.mkfifo(folders[1] / "error.txt")
    (folders[2] / "error.txt").write_bytes(b"\xff\xfe failed")
    assert load_study(store, "s").failures == {runs[3].run_id: "\ufffd\ufffd failed"}


def test_a_layer_name_from_a_stranger_leaves_the_figures_valid(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(synthetic.LAYERS, "MLP", ["hidden\x1b1", "</svg>", "=3", "out\x00"])
    synthetic.write(tmp_path, [Run(norm, total=20) for norm in ("NoNorm", "BatchNorm")])
    figures = sorted((write_report(tmp_path).folder / "figures").glob("*.svg"))
    assert any(r"hidden\x1b1" in path.read_text() for path in figures)
    for path in figures:
        assert xml.dom.minidom.parse(str(path)).documentElement.tagName == "svg"
