from __future__ import annotations

import json
import sys
from collections import Counter

import pytest

import bnstudy
from bnstudy.report.report import write_report
from scripts.make_store import ALL_CLAIMS, choose_specs, main


@pytest.mark.usefixtures("blank_figures")
def test_a_report_on_a_made_up_store_has_verdicts_on_all_claims(tmp_path, monkeypatch, capsys):
    options = ["--results-dir", str(tmp_path), "--runs", "10", "--rows", "700", "--seeds", "1"]
    monkeypatch.setattr(sys, "argv", ["make_store.py", *options])
    main()
    assert capsys.readouterr().out.startswith("10 runs, ")
    runs, metrics = bnstudy.load_runs(tmp_path), bnstudy.load_metrics(tmp_path)
    assert len(runs) == 10
    assert set(runs["norm"]) == {"NoNorm", "BatchNorm"}
    lengths = metrics["run_id"].value_counts()
    assert lengths[runs.loc[runs["status"] == "finished", "run_id"]].between(600, 800).all()
    result = write_report(tmp_path, "large")
    assert (result.missing, result.diverged) == (0, int((runs["status"] == "diverged").sum()))
    verdicts = json.loads((result.folder / "claims.json").read_text())
    assert {entry["claim"] for entry in verdicts} == {*ALL_CLAIMS}
    monkeypatch.setattr("bnstudy.report.page.load_figures", lambda _: {})  # they are those of the first report
    assert write_report(tmp_path, "all").index.exists()


def test_arms_differ_by_at_most_one_seed():
    specs = choose_specs(runs=200, seeds=5, steps=60)
    assert len({spec.run_id for spec in specs}) == 200
    seeds = Counter((spec.model, spec.norm, spec.lr) for spec in specs)
    assert max(seeds.values()) - min(seeds.values()) <= 1
