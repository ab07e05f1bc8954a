from __future__ import annotations

import json
import os
import time
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from bnstudy.report.report import write_report
from bnstudy.store.plans import Plans
from bnstudy.validation import ConfigError
from tests import synthetic
from tests.synthetic import Run

STUDY = {"name": "s", "title": "?", "claims": []}
A, B, C, D = (letter * 12 for letter in "abcd")


@pytest.fixture
def plans(tmp_path: Path) -> Plans:
    return Plans(tmp_path)


def test_a_plan_has_the_runs_of_all_commands(plans):
    plans.add(STUDY, "quick", "bnstudy study=s", [B, A])
    plans.add(STUDY, "quick", "bnstudy study=s seed=9", [C])
    time.sleep(0.01)
    plans.add(STUDY, "quick", "bnstudy study=s", [A])
    (plan,) = plans.load("s")
    assert plan["run_ids"] == [A, C]
    assert plan["commands"] == ["bnstudy study=s seed=9", "bnstudy study=s"]
    assert (plan["name"], plan["title"], plan["scale"]) == ("s", "?", "quick")
    assert plans.studies() == ["s"]
    assert plans.damaged() == []


def test_a_study_that_was_looked_at_repeatedly_once_stays_marked(plans):
    plans.add(STUDY, "quick", "bnstudy study=s", [A])
    assert "looks" not in plans.load("s")[0]
    plans.add({**STUDY, "looks": "repeated"}, "quick", "bnstudy study=s until=decided", [B])
    time.sleep(0.01)
    plans.add(STUDY, "quick", "bnstudy study=s", [A])
    assert plans.load("s")[0]["looks"] == "repeated"


def test_commands_that_plan_at_the_same_time_lose_no_runs(plans):
    run_ids = [f"{i:012x}" for i in range(40)]
    commands = [Thread(target=plans.add, args=(STUDY, "quick", f"bnstudy seed={i}", [i])) for i in run_ids]
    for command in commands:
        command.start()
    for command in commands:
        command.join()
    assert plans.load("s")[0]["run_ids"] == run_ids


def test_plans_start_with_the_scale_that_was_planned_last(plans, tmp_path):
    for i, scale in enumerate(("standard", "quick")):
        plans.add(STUDY, scale, "bnstudy", [A])
        (path,) = (tmp_path / "studies" / "s" / scale).glob("*.json")
        os.utime(path, (i, i))
    assert [plan["scale"] for plan in plans.load("s")] == ["quick", "standard"]


def test_a_command_that_may_add_runs_keeps_those_that_it_planned_before(plans):
    def plan(run_ids: list[str], complete: bool) -> list[str]:
        plans.add(STUDY, "quick", "bnstudy study=s", run_ids, complete)
        return plans.load("s")[0]["run_ids"]

    assert plan([A], complete=False) == [A]
    assert plan([A, B, C], complete=True) == [A, B, C]
    assert plan([A, B], complete=False) == [A, B, C]
    assert plan([A, D], complete=False) == [A, D]  # the study has changed
    assert plan([A], complete=True) == [A]


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", "", ".", "..", "a\nb", "a b"])
def test_names_that_are_no_folder_names_are_refused(plans, tmp_path, name):
    with pytest.raises(ConfigError, match=r"(?s)study\.name=.* is not allowed"):
        plans.add({**STUDY, "name": name}, "quick", "bnstudy", [A])
    with pytest.raises(ConfigError, match=r"(?s)scale\.name=.* is not allowed"):
        plans.add(STUDY, name, "bnstudy", [A])
    assert list(tmp_path.iterdir()) == []
    assert plans.load(name) == plans.damaged(name) == []


@pytest.mark.parametrize("linked", ["studies", "studies/s", "studies/s/quick", "studies/s/quick/reported"])
def test_nothing_is_planned_through_a_symbolic_link(tmp_path, linked):
    store, home = tmp_path / "store", tmp_path / "home"
    (store / linked).parent.mkdir(parents=True)
    home.mkdir()
    (store / linked).symlink_to(home)
    with pytest.raises(ConfigError, match=f"{store / linked} is a symbolic link"):
        Plans(store).mark_reported("s", "quick", [A])
    if "reported" not in linked:
        with pytest.raises(ConfigError, match=f"{store / linked} is a symbolic link"):
            Plans(store).add(STUDY, "quick", "bnstudy", [A])
    assert list(home.iterdir()) == []


GOOD: dict[str, Any] = {"title": "?", "claims": [], "command": "bnstudy study=s", "run_ids": [A]}


def node(**values: Any) -> str:
    return json.dumps({**GOOD, **values})


DAMAGED_PLANS = {
    "empty": "",
    "zeros": "\0" * 40,
    "truncated": node()[:-9],
    "garbage": "\udcff\udcfe",
    "a list": "[1, 2]",
    "a text": '"run_ids"',
    "null": "null",
    "deep": "[" * 100_000,
    "no title": json.dumps({k: v for k, v in GOOD.items() if k != "title"}),
    "no runs": json.dumps({k: v for k, v in GOOD.items() if k != "run_ids"}),
    "runs are a text": node(run_ids=A),
    "runs are numbers": node(run_ids=[1, 2.5]),
    "runs are nested": node(run_ids=[[A]]),
    "a run elsewhere": node(run_ids=["../../../x"]),
    "a run with a slash": node(run_ids=["aaaaa/aaaaaa"]),
    "a run too long": node(run_ids=[A + "a"]),
    "a run in capitals": node(run_ids=["A" * 12]),
    "claims are a number": node(claims=3),
    "another kind of looks": node(looks="never"),
    "two commands": node(command="bnstudy study=s; rm -rf ~"),
    "a command in a command": node(command="bnstudy $(rm -rf ~)"),
    "another program": node(command="curl example.org"),
    "an open quote": node(command="bnstudy 'study=s"),
    "two lines": node(command="bnstudy\nrm -rf ~"),
}


@pytest.mark.parametrize("content", DAMAGED_PLANS.values(), ids=DAMAGED_PLANS.keys())
def test_a_damaged_plan_is_left_out_and_named(plans, tmp_path, content):
    plans.add(STUDY, "quick", "bnstudy study=s", [A])
    plans.add({**STUDY, "name": "t"}, "quick", "bnstudy study=t", [C])
    path = tmp_path / "studies/s/quick/000000000000.json"
    path.write_text(content, errors="surrogateescape")
    assert [plan["run_ids"] for plan in plans.load("s")] == [[A]]
    (sentence,) = plans.damaged("s")
    assert sentence.startswith(f"{path} is damaged and was left out (")
    assert sentence.endswith("delete it; the same command writes it again.")
    assert plans.damaged() == [sentence]
    assert plans.damaged("t") == []


@pytest.mark.parametrize(("study", "scale"), [("my study", "quick"), ("s", "my scale")])
def test_plans_in_a_folder_of_a_name_that_is_not_allowed_are_left_out_and_named(plans, tmp_path, study, scale):
    plans.add(STUDY, "quick", "bnstudy study=s", [A])
    folder = tmp_path / "studies" / study / scale
    (tmp_path / "studies/not a study/quick").mkdir(parents=True)
    folder.mkdir(parents=True)
    (folder / "000000000000.json").write_text(node())
    assert (plans.studies(), len(plans.load("s"))) == (["s"], 1)
    (sentence,) = plans.damaged(study)
    assert sentence.startswith(f"{folder} was left out: names must be of letters, digits, dots, - and _.")
    assert plans.damaged() == [sentence]
    assert plans.damaged("t") == []


def test_what_is_no_file_is_no_plan(plans, tmp_path):
    folder = tmp_path / "studies/s/quick"
    (folder / "folder.json").mkdir(parents=True)
    os.mkfifo(folder / "pipe.json")
    (folder / "link.json").symlink_to("nowhere")
    (folder / "device.json").symlink_to("/dev/zero")
    assert plans.load("s") == []
    assert len(plans.damaged("s")) == 4


def test_unknown_folders_are_no_studies(plans, tmp_path):
    for name in ("s/a b", "a b/quick", ".hidden/quick"):
        (tmp_path / "studies" / name).mkdir(parents=True)
        (tmp_path / "studies" / name / "x.json").write_text(node())
    assert plans.studies() == plans.load("s") == []
    assert [sentence.partition(" was left out")[0] for sentence in plans.damaged()] == [
        str(tmp_path / "studies" / name) for name in ("a b/quick", "s/a b")
    ]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"first_drawn": 3, "run_ids": "x"}',
        '{"first_drawn": "2026", "run_ids": ["../x"]}',
    ],
)
def test_a_damaged_mark_is_left_out_and_named(plans, tmp_path, content):
    plans.add(STUDY, "quick", "bnstudy study=s", [A])
    plans.mark_reported("s", "quick", [B])
    path = tmp_path / "studies/s/quick/reported/000000000000.json"
    path.write_text(content)
    assert [mark.run_ids for mark in plans.reported("s", "quick")] == [(B,)]
    (sentence,) = plans.damaged()
    assert sentence.startswith(f"{path} is damaged")


@pytest.mark.usefixtures("blank_figures")
def test_a_report_names_damaged_plans_and_equals_one_without_them(tmp_path):
    runs = [Run(norm, seed=seed, total=20) for norm in ("NoNorm", "BatchNorm") for seed in range(2)]
    synthetic.plan(tmp_path, "s", synthetic.write(tmp_path, runs))
    whole = write_report(tmp_path, "s")
    path = tmp_path / "studies/s/quick/000000000000.json"
    path.write_text(node(run_ids=["../../x"]))
    result = write_report(tmp_path, "s")
    (caution,) = {*result.cautions} - {*whole.cautions}
    assert caution.startswith(f"{path} is damaged")
    assert (result.findings, result.verdicts, result.missing) == (whole.findings, whole.verdicts, 0)
    assert caution in write_report(tmp_path, "all").cautions


def test_a_study_with_damaged_plans_alone_is_refused_with_their_names(tmp_path):
    runs = [Run(total=20)]
    synthetic.plan(tmp_path, "s", synthetic.write(tmp_path, runs))
    (path,) = (tmp_path / "studies/s/quick").glob("*.json")
    path.write_text("")
    for study in ("s", "all"):
        with pytest.raises(ConfigError, match=rf"{path} is damaged"):
            write_report(tmp_path, study)
    assert write_report(tmp_path).missing == 0  # the report on all runs needs no plan


def test_the_plan_of_a_command_line_is_removed_alone(plans):
    plans.add(STUDY, "quick", "bnstudy study=s", [A, B])
    time.sleep(0.01)
    plans.add(STUDY, "full", "bnstudy study=s scale=full", [C])
    lines = plans.commands("s")
    assert [(line.scale, line.command, line.run_ids) for line in lines] == [
        ("quick", "bnstudy study=s", (A, B)),
        ("full", "bnstudy study=s scale=full", (C,)),
    ]
    plans.remove(lines[0])
    assert [plan["run_ids"] for plan in plans.load("s")] == [[C]]
    plans.remove(lines[1])
    assert plans.studies() == []
    assert list((plans.results_dir / "studies").iterdir()) == []


def test_no_plan_is_removed_through_a_link(plans, tmp_path):
    plans.add(STUDY, "quick", "bnstudy study=s", [A])
    (line,) = plans.commands("s")
    line.path.parent.rename(tmp_path / "elsewhere")
    line.path.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="symbolic link"):
        plans.remove(line)
