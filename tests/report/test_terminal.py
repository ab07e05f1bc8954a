"""What `bnstudy-report` prints, on a terminal and into a pipe."""

from __future__ import annotations

import io
import json
import logging
import re
import webbrowser
from dataclasses import replace
from pathlib import Path

import pytest

from bnstudy import cli
from bnstudy.report import terminal
from bnstudy.report.report import write_report
from bnstudy.report.result import ReportResult
from bnstudy.report.terminal import align, show_report, stage, stages_shown
from tests import synthetic
from tests.conftest import leave_figures_blank


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    ids = synthetic.write(folder, synthetic.lr_sweep(seeds=2, total=40, rates=(0.1, 1.0)))
    for study in ("one", "other"):
        synthetic.plan(folder, study, ids, claims=["faster_convergence", "dead_relus"])
    return folder


@pytest.fixture(scope="module")
def result(store: Path) -> ReportResult:
    with pytest.MonkeyPatch.context() as patch:
        leave_figures_blank(patch)
        return write_report(store, "one")


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_every_line_fits_into_the_terminal(result, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    *lines, _, path = terminal.ANSI.sub("", show_report(result, Terminal())).splitlines()
    assert max(map(len, lines)) <= columns
    assert path == f"Report: {result.index.absolute().as_uri()}"


@pytest.mark.parametrize("columns", [1, 12, 39])
def test_in_a_very_narrow_terminal_lines_have_40_letters(result, monkeypatch, columns):
    shown = []
    for width in (columns, 40):
        monkeypatch.setenv("COLUMNS", str(width))
        shown.append(show_report(result, Terminal()))
    assert shown[0] == shown[1]


def test_what_widened_means_is_said_once(result):
    found = [replace(verdict, contrast=replace(verdict.contrast, slack=0.1)) for verdict in result.found]
    widened = replace(result, found=tuple(found))
    assert show_report(widened, io.StringIO()).count(terminal.WIDENED_NOTE) == 1
    assert terminal.WIDENED_NOTE not in show_report(result, io.StringIO())


def test_each_claim_and_verdict_is_shown_once(result):
    text = " ".join(show_report(result, io.StringIO()).split())
    primary = [verdict for verdict in result.found if verdict.contrast.is_primary]
    assert 0 < len(primary) < len(result.found)
    for verdict in primary:
        assert text.count(verdict.contrast.claim.statement) == 1
    assert len(re.findall(r"\b[A-Z]{9,}\b", text)) == len(primary)
    assert f"{len(result.found) - len(primary)} verdicts in other views: on the page." in text


def test_several_cases_have_the_words_that_the_page_has(result):
    (one, *_) = [v for v in result.found if v.contrast.claim.name == "dead_relus" and v.contrast.is_primary]
    worse = replace(one, effect=-20.0, low=-30.0, high=-10.0)
    text = " ".join(show_report(replace(result, found=(worse, worse)), io.StringIO()).split())
    assert text.count("20 percentage points more units that died (10 to 30)") == 2


def test_colours_are_for_terminals_without_no_color(result, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[33mINCONCLUSIVE\x1b[0m" in show_report(result, Terminal())
    assert "\x1b" not in show_report(result, io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in show_report(result, Terminal())


def test_a_report_on_all_studies_has_a_row_for_each_claim_and_counts_the_rest(store, command):
    found = json.loads((write_report(store, "all").folder / "claims.json").read_text())
    status, out, err = command("study=all", f"results_dir={store}", entry=cli.report)
    assert (status, err) == (0, "")
    answer, rows, rest, path = out.strip().split("\n\n")
    assert answer.endswith(".")
    assert len(rows.splitlines()) == len({verdict["claim"] for verdict in found})
    assert rest.startswith(f"{len(found)} verdicts in all views: ")
    assert path == f"Report: {(store / 'reports/all-studies/index.html').as_uri()}"


def test_open_shows_the_page_in_the_browser(store, command, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: not opened.append(address))
    command("study=one", f"results_dir={store}", entry=cli.report)
    assert opened == []
    command("study=one", f"results_dir={store}", "--open", entry=cli.report)
    assert opened == [(store / "reports/one/index.html").as_uri()]


def test_open_says_that_no_browser_could_be_started(store, command, monkeypatch):
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    status, _, err = command("study=one", f"results_dir={store}", "--open", entry=cli.report)
    assert (status, err) == (0, "bnstudy-report: no browser could be started: open the address above.\n")


def test_columns_of_numbers_are_right_aligned_and_words_are_wrapped():
    rows = [["a", "1"], ["one two three four five six", "100"]]
    assert align(rows, right=[1], flexible=[0], width=23) == "\n".join(
        ["a                     1", "one two three four  100", "five six"]
    )
    assert align(rows, right=[1]).splitlines()[1] == "one two three four five six  100"


def test_a_text_among_rows_is_wrapped_at_the_whole_width():
    rows = [["ab", "c"], "one two three", " four five"]
    assert align(rows, width=9) == "ab  c\none two\nthree\n    four\n    five"


def test_a_stage_is_shown_in_a_line_that_disappears():
    stream = Terminal()
    with stages_shown("Planning ...", stream) as show:
        show("Reading \x1b[31mruns")
    assert stream.getvalue() == "Planning ...\r\x1b[KReading \\x1b[31mruns\r\x1b[K"
    assert not [handler for handler in stage.handlers if not isinstance(handler, logging.NullHandler)]


def test_stages_are_not_shown_in_a_pipe():
    stream = io.StringIO()
    with stages_shown("Planning ...", stream) as show:
        show("Reading runs")
    assert stream.getvalue() == ""
