"""A report from Python has the files of `bnstudy-report`, and shows itself."""

from __future__ import annotations

import html
import io
import re
import threading
import time
import xml.dom.minidom
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import bnstudy
from bnstudy import ConfigError
from bnstudy.api import reporting
from bnstudy.api.reporting import write
from bnstudy.config.arguments import parse_report_arguments
from bnstudy.report.notebook import Report
from bnstudy.report.terminal import show_report


@pytest.fixture(scope="module")
def report(sweep_dir: Path) -> Report:
    return bnstudy.report("lr_tolerance", results_dir=sweep_dir)


def test_it_prints_what_the_terminal_shows(report, sweep_dir, capsys):
    print(report)
    result = write(parse_report_arguments(["study=lr_tolerance", f"results_dir={sweep_dir}"]))
    assert capsys.readouterr().out.strip() == show_report(result, io.StringIO())
    assert report.index == sweep_dir / "reports/lr_tolerance/index.html"


def test_the_verdicts_are_those_of_claims_json(report):
    stored = pd.read_json(report.index.parent / "claims.json")
    assert len(report.verdicts) == len(report.found) == len(stored)
    assert list(report.verdicts["claim"]) == list(stored["claim"])
    assert list(report.verdicts["status"]) == list(stored["status"])
    assert report.verdicts["p"].tolist() == pytest.approx(stored["p"].tolist())


def test_a_figure_is_found_by_its_name_and_shows_itself(report):
    name = next(iter(report.figures))
    figure = report.figures[name]
    assert xml.dom.minidom.parseString(figure._repr_svg_()).documentElement.tagName == "svg"
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert figure.path == report.index.parent / f"figures/{name}.svg"
    with pytest.raises(KeyError, match=f"There is no figure {name}x; did you mean {name}"):
        report.figures[f"{name}x"]


def test_a_notebook_shows_the_verdicts_and_a_link(report):
    page = xml.dom.minidom.parseString(report._repr_html_())
    (link,) = page.getElementsByTagName("a")
    assert link.getAttribute("href") == report.index.absolute().as_uri()
    assert len(page.getElementsByTagName("tr")) == 1 + len(report.table)
    assert not {"script", "style"} & {node.tagName for node in page.getElementsByTagName("*")}


def test_notebook_terminal_and_page_give_the_same_answer(report):
    page = report.index.read_text()
    (answer,) = re.findall('<p class="answer">(.*)</p>', page)
    assert answer in report._repr_html_()
    assert repr(report).startswith(html.unescape(answer))


def test_texts_of_a_store_are_escaped(report):
    wild = "<b>_$%&#|\x1b[31m"
    found = next(verdict for verdict in report.found if verdict.contrast.is_primary)
    claim = replace(found.contrast.claim, statement=wild)
    shown = replace(found, contrast=replace(found.contrast, claim=claim))
    result = replace(report._result, found=(shown,), title=wild, cautions=(wild,))
    changed = Report(result)
    assert "&lt;b&gt;" in changed._repr_html_()
    assert "<b>" not in changed._repr_html_()
    assert "\x1b" not in changed._repr_html_() + repr(changed) + changed.to_markdown()
    assert r"\_\$%&amp;\#\|" in changed.to_markdown()
    assert r"\_\$\%\&\#|" in changed.to_latex()


def test_a_table_for_a_paper_has_a_row_for_each_verdict(report):
    lines = report.to_latex().splitlines()
    assert (lines[1], lines[-2]) == (r"\toprule", r"\bottomrule")
    assert sum(line.endswith(r"\\") for line in lines) == 1 + len(report.table)
    assert len(report.to_markdown().splitlines()) == 2 + len(report.table)


@pytest.mark.usefixtures("blank_figures")
def test_runs_of_a_frame_or_by_their_ids_have_a_report_of_their_own(sweep_dir):
    runs = bnstudy.load_runs(sweep_dir).iloc[:4]
    of_frame = bnstudy.report(runs=runs, results_dir=sweep_dir)
    assert of_frame.index.parent.name.startswith("runs-")
    assert of_frame.verdicts.empty
    assert of_frame.table.empty
    assert "The whole report" in of_frame._repr_html_()


@pytest.mark.usefixtures("blank_figures")
def test_an_id_may_be_a_text(sweep_dir):
    run_id = bnstudy.load_runs(sweep_dir)["run_id"].iloc[0]
    report = bnstudy.report(runs=run_id, results_dir=sweep_dir)
    assert report.index == bnstudy.report(runs=[run_id], results_dir=sweep_dir).index


def test_reports_of_several_threads_are_written_one_after_another(monkeypatch):
    """Figures are drawn by settings of the whole process."""
    events = []

    def write_slowly(_):
        events.append("begin")
        time.sleep(0.05)
        events.append("end")

    monkeypatch.setattr(reporting, "write", write_slowly)
    monkeypatch.setattr(reporting, "Report", lambda result: result)
    threads = [threading.Thread(target=bnstudy.report) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert events == ["begin", "end"] * 3


@pytest.mark.usefixtures("blank_figures")
def test_two_arms_are_compared(sweep_dir):
    compared = bnstudy.report(compare="BatchNorm, lr=1 vs NoNorm, lr=0.1", results_dir=sweep_dir)
    assert compared.index.parent.name.startswith("compare-")
    assert "test accuracy at the end" in compared._repr_html_()


def test_a_mistake_raises_the_sentence_of_the_command_line(sweep_dir):
    with pytest.raises(ConfigError, match="did you mean lr_tolerance"):
        bnstudy.report("lr_tolerence", results_dir=sweep_dir)
    with pytest.raises(ConfigError, match="runs is an empty frame: there is nothing to report on"):
        bnstudy.report(runs=pd.DataFrame({"run_id": []}), results_dir=sweep_dir)
