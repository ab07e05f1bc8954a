from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bnstudy.sweep.cost import Method
from bnstudy.sweep.dry_run import describe_dry_run
from bnstudy.sweep.plan import Plan, Stack
from bnstudy.sweep.request import PlannedRun, Request
from bnstudy.sweep.settings import Settings, StudySpec
from tests.conftest import spec_of

STACKED = Method("stacked", 4, compiled=True, norms_vary=False)


def planned(seeds: range) -> tuple[PlannedRun, ...]:
    spec = spec_of()
    return tuple(PlannedRun(replace(spec, seed=seed), f"seed={seed}", "") for seed in seeds)


def test_a_dry_run_prints_its_grid_its_stacks_and_a_time_and_trains_nothing(command):
    status, out, err = command("-m", "norm=none,batch", "seed=range(0,4)", "model=mlp,vgg", "steps=5", "dry_run=true")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "16 runs: 0 finished, 16 to do, 2 stacks of 4 and 8 one by one, on cpu.",
        "",
        "Every combination of:",
        "  norm   2  none, batch",
        "  seed   4  0, 1, 2, 3",
        "  model  2  mlp, vgg",
        "",
        "  model  norm       runs  stacks  engine   steps  time",
        "  MLP    NoNorm        4  1 of 4  stacked      5   1 s",
        "  MLP    BatchNorm     4  1 of 4  stacked      5   1 s",
        "  VGG    NoNorm        4  -       serial       5   2 s",
        "  VGG    BatchNorm     4  -       serial       5   2 s",
        "",
        out.splitlines()[-1],
    ]
    assert out.splitlines()[-1].startswith("Expected to take about ")
    assert not list(Path("results").glob("runs/*"))
    assert not list(Path("results").glob("workers/*"))


def test_many_values_and_stacks_take_few_lines(tmp_path):
    runs = planned(range(400))
    stacks = [Stack(runs[i : i + 4], STACKED, 20) for i in range(0, 400, 4)]
    plan = Plan(Settings(results_dir=str(tmp_path)), runs, runs)
    lines = describe_dry_run(Request(plan.settings, runs), plan, stacks, {runs[0].spec.stack_key: 2.0}, 2, 80)
    text = "\n".join(lines)
    assert "  seed  400  0, 1, 2, 3, 4, 5, ..., 399" in text
    assert "100 of 4" in text
    assert "Expected to take about 7 min" in text  # 400 runs of 2 s, by two workers
    assert len(text.splitlines()) == 8


def test_missing_combinations_are_noticed(tmp_path):
    runs = tuple(replace(run, name=f"norm=none {run.name}") for run in planned(range(3)))
    runs = (*runs, replace(runs[0], name="norm=batch seed=0"))
    plan = Plan(Settings(results_dir=str(tmp_path)), runs, runs)
    stacks, seconds = [Stack(runs, STACKED, 20)], {runs[0].spec.stack_key: 1.0}
    lines = describe_dry_run(Request(plan.settings, runs), plan, stacks, seconds, 1, 80)
    assert "Some combinations of:" in "\n".join(lines)


def test_several_studies_have_a_row_each(tmp_path):
    runs, settings = planned(range(5)), Settings(results_dir=str(tmp_path))
    members = tuple(
        Request(settings, part, StudySpec(name, "?", (), {}, {}), "quick")
        for name, part in (("one", runs), ("other", runs[:2]))
    )
    plan = Plan(settings, runs, runs[1:])
    stacks, seconds = [Stack(runs[1:], STACKED, 20)], {runs[0].spec.stack_key: 10.0}
    lines = "\n".join(describe_dry_run(Request(settings, runs, members=members), plan, stacks, seconds, 1, 80))
    assert [line.split() for line in lines.splitlines()[1:4]] == [
        ["study", "arms", "rates", "seeds", "runs", "to", "do", "time"],
        ["one", "1", "1", "5", "5", "4", "40", "s"],
        ["other", "1", "1", "2", "2", "1", "10", "s"],
    ]


@pytest.mark.parametrize(("norms", "rows"), [("none,batch", 2), ("batch", 1)])
def test_kinds_that_look_alike_share_a_row(command, norms, rows):
    _, out, _ = command(
        "-m", f"norm={norms}", "init.gain=1,2", "model.depth=2,3", "seed=0,1", "steps=5", "dry_run=true"
    )
    assert sum(line.startswith("  MLP") for line in out.splitlines()) == rows
