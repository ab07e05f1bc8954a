"""Several studies by one command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bnstudy.store.files import conf_dir
from bnstudy.store.loading import load_runs
from bnstudy.store.plans import Plans
from bnstudy.sweep.request import PlannedRun, Request, together
from bnstudy.sweep.settings import Launcher, Settings, StudySpec
from tests.conftest import Command, spec_of

LONG = """# @package _global_
study:
  _target_: bnstudy.sweep.settings.StudySpec
  name: {name}
  title: Is it?
  claims: []
  sweep: {sweep}
  scales:
    quick: {{data: digits, model: mlp, model.width: 8, batch_size: 64, steps: 3}}
hydra:
  mode: MULTIRUN
"""
SHORT = """defaults: [/study_base]
name: {name}
title: Is it?
sweep: {sweep}
scales:
  quick: {{data: digits, model: mlp, model.width: 8, batch_size: 64, steps: 3}}
"""
SWEEPS = {
    "one": "{norm: 'none,batch', lr: '0.1,1'}",
    "two": "{norm: 'batch,layer', lr: '0.1', seed: 0}",
    "timed": "{norm: batch, lr: '0.1', probe: none, engine: serial}",
}


@pytest.fixture
def study_command(command: Command, tmp_path: Path) -> Command:
    """Runs `bnstudy` with a folder of studies, written in either form."""
    folder = tmp_path / "my_conf" / "study"
    folder.mkdir(parents=True)
    for form, (name, sweep) in zip((LONG, SHORT, LONG), SWEEPS.items(), strict=True):
        (folder / f"{name}.yaml").write_text(form.format(name=name, sweep=sweep))
    return lambda *words: command("--config-dir", "my_conf", *words)


def planned(name: str) -> dict:
    (plan,) = Plans(Path("results")).load(name)
    return plan


def test_studies_share_runs_and_each_stores_its_own_plan(study_command):
    status, out, _ = study_command("study=all", "study.names=[one,two,timed]", "seed=range(0,2)")
    assert status == 0
    runs = load_runs("results")
    assert len(runs) == 8 + 2 + 2  # study one has two of the four runs of study two
    plans = {name: planned(name)["run_ids"] for name in SWEEPS}
    assert {name: len(ids) for name, ids in plans.items()} == {"one": 8, "two": 4, "timed": 2}
    assert len({*plans["one"]} & {*plans["two"]}) == 2
    assert set(runs.loc[runs["run_id"].isin(plans["timed"]), "engine"]) == {"serial"}
    assert planned("two")["commands"] == ["bnstudy --config-dir my_conf study=two 'seed=range(0,2)'"]
    assert "one: norm=none lr=0.1 seed=0" in out


BY_A_LIST = "is not allowed with several studies: choose some by 'study.names=[cost,affine]'."


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("study.names=[one,two]", "lr=-1"), "study=one: At norm=none: lr=-1 is not allowed"),
        (("study.names=[on]",), "study.names=on is not allowed: there is no such study; did you mean one?"),
        (("study.names=one,two",), f"study.names=one,two {BY_A_LIST}"),
        (("study.name=one",), f"study.name=one {BY_A_LIST}"),
        (("study.names=null",), f"study.names=null {BY_A_LIST}"),
        (("study.names=[]",), "study.names=[] is not allowed"),
        (("study.names=[one]", "hydra.mode=RUN"), "study=all is a sweep"),
        (("study.names=[quickstart]", "until=decided"), "until=decided is not allowed with several studies"),
    ],
)
def test_a_mistake_in_a_command_for_several_studies_is_refused(study_command, words, sentence):
    status, _, err = study_command("study=all", *words)
    assert (status, sentence in err) == (2, True), err


def test_a_list_of_studies_cannot_contain_another_list(study_command, tmp_path):
    own = tmp_path / "my_conf" / "study" / "both.yaml"
    own.write_text((conf_dir() / "study" / "all.yaml").read_text().replace("name: all", "name: both"))
    status, out, err = study_command("study=both", "study.names=[one,two]", "dry_run=true")
    assert status == 0, err
    assert out.startswith("5 runs: 0 finished")
    again = study_command("study=all", "study.names=[one,two,both]", "dry_run=true")
    assert again[1] == out
    status, _, err = study_command("study=all", "study.names=[both]")
    assert (status, "study.names=[both] is not allowed: it must be a list of single studies" in err) == (2, True)


def test_all_requests_are_checked_before_the_first_trains(study_command, tmp_path):
    bad = tmp_path / "my_conf" / "study" / "bad.yaml"
    bad.write_text(LONG.format(name="bad", sweep="{norm: instance, engine: serial}"))
    status, _, err = study_command("study=all", "study.names=[one,bad]")
    assert (status, "norm=instance is not allowed" in err) == (2, True)
    assert not list(Path("results/runs").glob("*/summary.json"))


@pytest.mark.slow
def test_all_studies_include_those_of_the_config_dir(study_command):
    status, out, err = study_command("study=all", "steps=1", "seed=0", "dry_run=true")
    assert status == 0, err
    for name in ("init_schemes", "lu_born_dead", "one"):
        assert f" {name} " in out


def request(study: str, *names: str, settings: Settings | None = None) -> Request:
    runs = tuple(PlannedRun(replace(spec_of(), seed=i), name, name) for i, name in enumerate(names))
    return Request(settings or Settings(), runs, StudySpec(study, "?", (), {}, {}), "quick", Launcher())


def test_requests_with_equal_settings_are_joined():
    first, second = request("one", "norm=none", "norm=batch"), request("two", "norm=none")
    serial = request("three", "norm=none", settings=Settings(engine="serial"))
    both, alone = together([first, serial, second])
    assert [run.name for run in both.runs] == ["one: norm=none", "one: norm=batch", "two: norm=none"]
    assert [run.arm for run in both.runs] == ["one", "one", "two"]
    assert both.members == (first, second)
    assert both.study is None
    assert alone is serial
