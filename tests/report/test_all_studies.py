from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from bnstudy.claims.frames import load_study
from bnstudy.report.report import write_report
from bnstudy.store.runs import Store
from bnstudy.validation import ConfigError
from tests import synthetic
from tests.report.pages import Page, files
from tests.synthetic import Run

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three studies at two scales."""
    folder = tmp_path_factory.mktemp("several")
    claims = ["higher_learning_rates", "dead_relus"]
    small, large = synthetic.lr_sweep(seeds=6, total=40), synthetic.lr_sweep(seeds=8, total=60)
    synthetic.plan(folder, "quickstart", synthetic.write(folder, small), claims=claims)
    synthetic.plan(folder, "lr_tolerance", synthetic.write(folder, large), claims=claims[:1])
    waiting = [Run(norm, seed=99) for norm in ("NoNorm", "BatchNorm")]
    synthetic.plan(folder, "dead_relu", [r.run_id for r in waiting], claims=claims[1:])
    synthetic.plan(folder, "plain", synthetic.write(folder, synthetic.two_models()), scale="full")
    return folder


def test_a_claim_of_several_studies_is_judged_on_the_one_with_the_most_runs(several: Path) -> None:
    result = write_report(several, "all", "quick")
    assert result.folder == several / "reports" / "all-studies"
    found = json.loads((result.folder / "claims.json").read_text())
    assert {v["claim"]: v["study"] for v in found} == {
        "higher_learning_rates": "lr_tolerance", "dead_relus": "quickstart",
    }  # fmt: skip
    assert result.cautions == ("dead_relu: none of its 2 runs is finished.",)


def test_every_row_of_the_index_links_a_card_on_the_page_of_its_study(several: Path) -> None:
    index = write_report(several, "all", "quick").index
    text = index.read_text()
    rows = re.findall(r'<th scope="row"><a href="([^"]+#[^"]+)"', text)
    assert {*rows} == {
        "../lr_tolerance/index.html#claim-higher-learning-rates", "../quickstart/index.html#claim-dead-relus",
    }  # fmt: skip
    links = [str(a["href"]) for a in Page(text).all("a")]
    for path, _, target in (link.partition("#") for link in links):
        linked = (index.parent / path) if path else index
        assert not target or f'id="{target}"' in linked.read_text()
    ids = [a["id"] for _, a in Page(text).tags if "id" in a]
    assert len(ids) == len(set(ids))
    table = pd.read_csv(index.parent / "runs.csv")
    assert table.groupby("study").size().to_dict() == {"lr_tolerance": 128, "quickstart": 96}


def test_the_markdown_of_the_index_links_that_of_each_study(several: Path) -> None:
    folder = write_report(several, "all", "quick").folder
    links = re.findall(r"\]\((\S+)\)", (folder / "report.md").read_text())
    assert links == ["../lr_tolerance/report.md", "../quickstart/report.md"]
    assert all((folder / link).is_file() for link in links)


def test_the_reports_on_all_studies_are_those_on_each(several: Path) -> None:
    write_report(several, "all", "quick")
    reports = several / "reports"
    at_once = {name: files(reports / name) for name in ("quickstart", "lr_tolerance")}
    for name in at_once:
        write_report(several, name)
    assert {name: files(reports / name) for name in at_once} == at_once


def test_several_processes_write_the_bytes_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # figures are not blank in other processes
    for name, seed in (("a", 0), ("b", 1)):
        synthetic.plan(tmp_path, name, synthetic.write(tmp_path, [Run(total=20, seed=seed, dead=False)]))
    written, told = [], list[str]()
    for workers in (1, 2):
        monkeypatch.setattr("bnstudy.report.all_studies.processes", lambda workers=workers: workers)
        write_report(tmp_path, "all", progress=told.append)
        written.append(files(tmp_path / "reports"))
    assert written[0] == written[1]
    assert told[-3:] == ["a, study 1 of 2", "b, study 2 of 2", "index"]
    assert "curves, MLP on Digits" in told


def test_the_scale_planned_last_is_the_default_of_all_studies(several: Path) -> None:
    result = write_report(several, "all")
    assert "scale full" in (result.folder / "report.md").read_text()
    assert result.verdicts == ()


def test_runs_that_studies_share_are_counted_once(tmp_path: Path) -> None:
    runs = [Run(norm, seed=seed, total=20) for norm in ("NoNorm", "BatchNorm") for seed in range(4)]
    runs[:3] = [replace(run, diverged_at=5) for run in runs[:3]]
    synthetic.write(tmp_path, runs[:-1])
    for study, its in (("one", runs), ("other", runs), ("part", runs[2:])):
        synthetic.plan(tmp_path, study, [run.run_id for run in its])
    result = write_report(tmp_path, "all")
    text = (result.folder / "report.md").read_text()
    assert "3 studies, 7 of 8 runs, seeds 0 to 3, 3 diverged, " in text
    assert (result.diverged, result.missing) == (3, 1)
    assert result.cautions[0].startswith("Runs are missing: 1 of 8 in one, 1 of 8 in other, 1 of 6 in part.")


@pytest.mark.parametrize(
    ("scale", "sentence"),
    [("huge", "no study has been run at scale=huge in .*, but at full, quick"), (None, "no study has been run in")],
)
def test_a_report_on_all_studies_needs_one(several: Path, tmp_path: Path, scale: str | None, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        write_report(several if scale else tmp_path, "all", scale)


def test_a_study_whose_runs_are_all_damaged_costs_no_other_study_its_report(tmp_path: Path) -> None:
    for name, seed in (("good", 0), ("bad", 1)):
        synthetic.plan(tmp_path, name, synthetic.write(tmp_path, [Run(total=20, seed=seed)]))
    synthetic.edit_summary(tmp_path, Run(total=20, seed=1).run_id, status="unknown")
    found = write_report(tmp_path, "all").cautions
    assert any("bad: No run can be reported on. Run" in caution for caution in found)
    synthetic.edit_summary(tmp_path, Run(total=20).run_id, status="unknown")
    with pytest.raises(ConfigError, match=r"study=all: .* No run can be reported on"):
        write_report(tmp_path, "all")


def test_a_claim_of_a_study_whose_runs_are_all_damaged_is_judged_on_another(tmp_path: Path) -> None:
    for name, runs in (("good", [Run(total=20)]), ("bad", [Run(total=20, seed=seed) for seed in (1, 2)])):
        synthetic.plan(tmp_path, name, synthetic.write(tmp_path, runs), claims=["dead_relus"])
    for seed in (1, 2):
        synthetic.edit_summary(tmp_path, Run(total=20, seed=seed).run_id, status="unknown")
    assert {verdict.contrast.study for verdict in write_report(tmp_path, "all").found} == {"good"}


def test_the_report_on_all_studies_says_that_two_of_them_had_different_images_of_one_name(tmp_path):
    for name, norm, checksum in (("a", "NoNorm", "00"), ("b", "BatchNorm", "01")):
        [run_id] = synthetic.write(tmp_path, [Run(norm, dead=False)])
        dataset = Store(tmp_path).summary(run_id)["dataset"]
        synthetic.edit_summary(tmp_path, run_id, dataset={**dataset, "checksum": checksum})
        synthetic.plan(tmp_path, name, [run_id])
    assert not load_study(tmp_path, "a").mixed_images
    sentence = write_report(tmp_path, "all").cautions[0]
    assert sentence.startswith("Digits has named different images")
