from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bnstudy.report.figures.style import render, report_style
from bnstudy.report.figures.verdicts import abbreviate, draw_verdicts
from bnstudy.report.published import Published, read_published
from bnstudy.report.study_report import Folders
from tests import synthetic
from tests.report.pages import Page

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study on two datasets, and one on the first of them with fewer runs."""
    folder = tmp_path_factory.mktemp("published")
    claims, sweep = ["higher_learning_rates", "dead_relus"], synthetic.lr_sweep(seeds=4, total=40)
    both = [*sweep, *(replace(run, data="MNIST") for run in sweep)]
    synthetic.plan(folder, "lr_tolerance", synthetic.write(folder, both), claims=claims[:1])
    small = synthetic.write(folder, [replace(run, data="MNIST", total=60) for run in sweep])
    synthetic.plan(folder, "dead_relu", small, claims=claims)
    return folder


@pytest.fixture
def published(store: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    monkeypatch.setattr("bnstudy.report.published.processes", lambda: 1)
    return read_published(Folders(store))


def test_a_claim_is_judged_once_on_each_dataset(published: Published) -> None:
    primary = [entry for entry in published.entries if entry["primary"]]
    assert [(entry["claim"], entry["data"], entry["study"]) for entry in primary] == [
        ("higher_learning_rates", "Digits", "lr_tolerance"),
        ("higher_learning_rates", "MNIST", "lr_tolerance"),
        ("dead_relus", "MNIST", "dead_relu"),
    ]


def test_the_page_links_nothing_but_itself(published: Published) -> None:
    text = published.files()["index.html"]
    page = Page(text)
    links = {str(a["href"]) for a in page.all("a") if not str(a["href"]).startswith("https://")}
    ids = [str(a["id"]) for _, a in page.tags if "id" in a]
    assert links <= {f"#{name}" for name in ids}
    assert len(ids) == len({*ids})
    assert not page.all("link") + page.all("img") + page.all("iframe")
    assert "default-src &#39;none&#39;" in text
    assert {a["href"] for a in page.all("a")} >= {"#claim-higher-learning-rates", "#claim-dead-relus"}


def test_the_same_store_gives_the_same_files(store: Path, published: Published) -> None:
    again = read_published(Folders(store))
    assert published.files() == again.files()
    assert set(published.files()) == {"index.html", "report.md", "claims.json", "verdicts.csv"}


def test_the_table_has_a_row_for_each_verdict(published: Published) -> None:
    files = published.files()
    entries = json.loads(files["claims.json"])
    rows = list(csv.DictReader(io.StringIO(files["verdicts.csv"])))
    assert [(row["claim"], row["data"], row["view"], row["verdict"]) for row in rows] == [
        (entry["claim"], entry["data"], entry["view"], entry["status"]) for entry in entries
    ]
    assert [f"{entry['effect']:.6g}" for entry in entries] == [row["effect"] for row in rows]


def test_the_markdown_names_every_claim(published: Published) -> None:
    text = published.files()["report.md"]
    assert len(re.findall(r"^### What counts against it$", text, re.M)) == 2
    assert "![" not in text


def test_the_picture_has_a_bar_for_each_case(published: Published) -> None:
    primary = [verdict for verdict in published.studies.found if verdict.contrast.is_primary]
    with report_style():
        figure = draw_verdicts(primary, "All claims")
        assert render(figure, "png") == render(draw_verdicts(primary, "All claims"), "png")
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "D"]
    assert len(marks) == len([verdict for verdict in primary if verdict.interval])
    assert "BN tolerates higher learning rates" in [text.get_text() for text in figure.axes[0].texts]


def test_names_of_normalizations_are_abbreviated() -> None:
    assert abbreviate("With batch normalization layer normalization") == "With BN LN"
