"""The second pass of a study: finer learning rates around the best ones."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from bnstudy.store.loading import load_runs
from bnstudy.store.plans import Plans
from bnstudy.store.runs import Store
from bnstudy.sweep import command as commands
from bnstudy.sweep import refine, worker
from bnstudy.sweep.request import PlannedRun
from tests.conftest import Command, spec_of

STUDY = """defaults: [/study_base]
name: {name}
title: Is it better?
claims: [{claim}]
sweep: {{norm: "{norms}", probe: none}}
scales: {{quick: {{model.width: 8, model.depth: 1, batch_size: 64, steps: 4, seed: "range(0,2)"}}}}
"""
CLAIM = """
statement: It is better.
source: a test
metric: test_accuracy
better: higher
delta: 0.01
unit: percentage points
with: {{norm: BatchNorm}}
without: {{norm: NoNorm}}
views: [{view}]
min_seeds: 4
"""
COARSE = [0.00316, 0.01, 0.0316, 0.1, 0.316, 1, 3.16]
FINE = {"NoNorm": [0.2], "BatchNorm": [0.2, 0.5], "LayerNorm": [0.5]}
SECOND = "Second pass: finer learning rates around the best of "


@pytest.fixture
def study(command: Command) -> Command:
    """Runs `bnstudy study=small` with further arguments, or another study of the test's folder."""
    for name, norms, claim in (("small", "none,batch", "better"), ("other", "batch,layer", "better")):
        write(f"study/{name}", STUDY.format(name=name, norms=norms, claim=claim))
    write("claim/better", CLAIM.format(view="best_rate"))
    write("claim/at_same", CLAIM.format(view="same_rate"))

    def run(*words: str, name: str = "small") -> tuple[int, str, str]:
        return command("--config-dir", "my_conf", f"study={name}", *words)

    return run


def write(name: str, text: str) -> None:
    path = Path("my_conf", f"{name}.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    """The finer learning rates by norm, which the test may change."""
    rates = {**FINE}

    def fine_rates(data, _):
        names = data.runs[["panel", "family"]].drop_duplicates().itertuples(index=False)
        return {(panel, family): tuple(rates[family]) for panel, family in names}

    monkeypatch.setattr(refine, "fine_rates", fine_rates)
    return rates


def trained() -> set[tuple[str, float, int]]:
    """(norm, learning rate, seed) of the stored runs."""
    runs = load_runs("results")
    return {*runs[["norm", "lr", "seed"]].itertuples(index=False, name=None)}


def grid(rates: dict[str, list[float]], seeds: int = 2) -> set[tuple[str, float, int]]:
    return {(norm, lr, seed) for norm in rates for lr in (*COARSE, *rates[norm]) for seed in range(seeds)}


def planned(name: str = "small") -> list[str]:
    plans = Plans(Path("results"))
    (plan,) = plans.load(plans.find(name))
    return plan["run_ids"]


def times() -> dict[str, int]:
    store = Store(Path("results"))
    return {run_id: store.run(run_id).summary.stat().st_mtime_ns for run_id in store.finished()}


TWO = {norm: FINE[norm] for norm in ("NoNorm", "BatchNorm")}


@pytest.mark.usefixtures("points")
def test_the_second_pass_trains_every_seed_at_the_finer_rates_of_its_family(study):
    status, out, err = study()
    assert status == 0, err
    assert trained() == grid(TWO)
    assert planned() == sorted(times())
    assert f"{SECOND}each of 2 families: 6 runs.\n6 runs: 0 finished, 6 to do" in err
    assert out.count("test acc") == 1  # one table of both passes
    names = [line.split()[1:5] for line in out.splitlines()[1:]]
    assert len(names) == 34
    assert names[28:] == [
        [f"norm={norm}", f"lr={lr}", f"seed={seed}", "finished"]
        for norm, lr in (("none", 0.2), ("batch", 0.2), ("batch", 0.5))
        for seed in range(2)
    ]


@pytest.mark.usefixtures("points")
def test_a_finished_command_typed_again_trains_nothing(study):
    study()
    before, plan = times(), planned()
    status, _, err = study()
    assert status == 0
    assert "28 runs: 28 finished, 0 to do." in err
    assert "6 runs: 6 finished, 0 to do." in err
    assert (times(), planned()) == (before, plan)


def test_the_rates_follow_from_the_runs_of_the_first_pass_alone(study, monkeypatch):
    """With the claims' own choice: the store then holds finer learning rates, of which one may be better."""
    status, _, err = study("steps=40")
    assert status == 0, err
    lr = pd.Series([lr for _, lr, _ in trained() if lr not in COARSE])
    assert len(lr) > 0
    assert lr.map(lambda x: min(abs(abs(math.log10(x / c)) - 0.25) for c in COARSE)).max() < 0.01
    before = times()
    seen = []
    monkeypatch.setattr(refine, "fine_rates", lambda data, _: seen.append(data.runs["lr"].unique()) or {})
    study("steps=40")
    assert sorted(seen[0]) == COARSE
    assert times() == before


def stop_at(monkeypatch: pytest.MonkeyPatch, number: int, function: str = "execute") -> Callable[[], None]:
    """Have the command stopped when it calls this function of `command` the n-th time, until `go_on()` is called."""
    calls, original = [], getattr(commands, function)

    def stopped(*arguments, **options):
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(commands, function, stopped)
    return lambda: calls.extend([1] * number)


@pytest.mark.usefixtures("points")
@pytest.mark.parametrize(
    ("function", "number", "runs_planned"),
    [("prepare_second_pass", 1, 28), ("execute", 2, 34)],
    ids=["between the passes", "in the second"],
)
def test_a_command_stopped_after_its_first_pass_goes_on(study, monkeypatch, function, number, runs_planned):
    go_on = stop_at(monkeypatch, number, function)
    assert study()[0] == 130
    assert (len(times()), len(planned())) == (28, runs_planned)
    before = times()
    go_on()
    assert study()[0] == 0
    assert trained() == grid(TWO)
    assert before.items() < times().items()
    assert len(planned()) == 34


@pytest.mark.usefixtures("points")
def test_a_command_typed_again_keeps_its_plan_while_it_trains(study, monkeypatch):
    """A run of the first pass was deleted."""
    study()
    plan = planned()
    runs = load_runs("results")
    shutil.rmtree(Path("results/runs", runs.loc[runs["lr"] == 0.1, "run_id"].iloc[0]))
    stop_at(monkeypatch, 1)
    assert study()[0] == 130
    assert (len(times()), planned()) == (33, plan)


def test_a_plan_holds_only_the_rates_of_the_last_time(study, points):
    study()
    points["NoNorm"] = []
    study()
    assert len(times()) == 34
    assert len(planned()) == 32


@pytest.mark.usefixtures("points")
def test_a_family_with_a_failed_run_is_left_out(study, monkeypatch):
    original = worker.summarize

    def summarize(training, spec, *others):
        if (spec.norm.label, spec.lr, spec.seed) == ("NoNorm", 0.1, 1):
            raise ValueError("no such network")
        return original(training, spec, *others)

    monkeypatch.setattr(worker, "summarize", summarize)
    status, out, err = study()
    assert status == 1
    assert "No finer learning rates for NoNorm (MLP on Digits): some of their runs are not stored." in err
    assert f"{SECOND}one family: 4 runs." in err
    assert "1 of 32 runs failed; the others are stored:\n  norm=none lr=0.1 seed=1: ValueError" in err
    assert re.search(r"norm=none lr=0.1 seed=1 +failed ", out)
    assert trained() == grid({"NoNorm": [], "BatchNorm": [0.2, 0.5]}) - {("NoNorm", 0.1, 1)}
    monkeypatch.setattr(worker, "summarize", original)
    assert study()[0] == 0
    assert trained() == grid(TWO)


@pytest.mark.usefixtures("points")
def test_a_study_whose_runs_are_all_damaged_has_no_second_pass_and_they_are_named(study):
    assert study("seed=0")[0] == 0
    for summary in Path("results").glob("runs/*/summary.json"):
        summary.write_text("{}")
    count = len(COARSE) * 2
    for words in ([], ["until=decided", "max_seeds=1"]):
        status, out, err = study("seed=0", *words)
        assert status == 1
        assert f"{count} of {count} runs failed" in err
        assert "is damaged (summary.json: " in err
        assert words or out.count("failed") == count
    assert study("seed=0", "dry_run=true")[0] == 0


@pytest.mark.usefixtures("points")
def test_a_dry_run_plans_the_second_pass_once_the_first_is_stored(study):
    status, out, _ = study("dry_run=true")
    assert status == 0
    assert out.splitlines()[-1] == (
        "A second pass may follow, with finer learning rates around the best of each family."
    )
    study()
    shutil.rmtree(Path("results/runs", next(r for r in times() if Store(Path("results")).config(r)["lr"] == 0.5)))
    before, plan = times(), planned()
    status, out, _ = study("dry_run=true")
    assert [line for line in out.splitlines() if line][:3] == [
        "28 runs: 28 finished, 0 to do.",
        f"{SECOND}each of 2 families: 6 runs.",
        "6 runs: 5 finished, 1 to do, 1 stack of 1, on cpu.",
    ]
    assert re.search(r"  lr +\d+  .*\b0\.5\b", out)
    assert (times(), planned()) == (before, plan)


@pytest.mark.usefixtures("points")
def test_networks_take_turns_in_the_second_pass_as_in_the_first(study):
    """As where the time of a step is compared: the norm is the last key."""
    text = STUDY.format(name="other", norms="", claim="better")
    write("study/other", text.replace('norm: "",', f'lr: "{",".join(map(str, COARSE))}", seed: 0, norm: "none,batch",'))
    status, out, err = study("seed=range(0,2)", name="other")
    assert status == 0, err
    fine = [" ".join(line.split()[1:4]) for line in out.splitlines()[29:]]
    turns = [f"lr=0.2 seed={seed} norm={norm}" for seed in range(2) for norm in ("none", "batch")]
    assert fine == [*turns, "lr=0.5 seed=0 norm=batch", "lr=0.5 seed=1 norm=batch"]


@pytest.mark.usefixtures("points")
def test_the_second_passes_of_several_studies_are_trained_together(study):
    """Stacks hold two kinds of initial weights, one of each study."""
    text = STUDY.format(name="other", norms="batch", claim="better")
    write("study/other", text.replace("probe: none", "probe: none, init: orthogonal"))
    status, _, err = study("study.names=[small,other]", "norm=batch", name="all")
    assert status == 0, err
    assert f"{SECOND}each of 2 families: 8 runs." in err
    runs = load_runs("results")
    fine = runs[~runs["lr"].isin(COARSE)]
    assert len(fine) == 8
    assert set(fine["stack_size"]) == {8}
    for name, init in (("small", "KaimingNormal"), ("other", "Orthogonal")):
        assert planned(name) == sorted(runs.loc[runs["init"] == init, "run_id"])


@pytest.mark.usefixtures("points")
def test_studies_that_share_a_family_share_its_finer_rates(study):
    status, out, err = study("study.names=[other,small]", name="all")
    assert status == 0, err
    assert f"{SECOND}each of 3 families: 8 runs." in err
    assert trained() == grid(FINE)
    assert {name: len(planned(name)) for name in ("small", "other")} == {"small": 34, "other": 34}
    assert [line.split()[:2] for line in out.splitlines()] == [["study", "runs"], ["other", "34"], ["small", "16"]]


@pytest.mark.usefixtures("points")
def test_seeds_are_added_at_the_finer_rates_of_each_look(study, monkeypatch):
    looks: list[dict[str, list[float]]] = [{**TWO}, {"NoNorm": [0.2], "BatchNorm": [0.05]}]
    number_of_seeds = {2: 0, 4: 1}

    def fine_rates(data, _):
        rates = looks[number_of_seeds[data.runs["seed"].nunique()]]
        return {("MLP on Digits", norm): tuple(rates[norm]) for norm in rates}

    monkeypatch.setattr(refine, "fine_rates", fine_rates)
    adding = ("until=decided", "seeds_at_once=2", "max_seeds=4")
    status, out, err = study(*adding)
    assert status == 0, err
    assert [line for line in out.splitlines() if line.startswith("Look")] == [
        "Look 1, 2 seeds (0 to 1):",
        "Look 2, 4 seeds (0 to 3):",
    ]
    assert trained() == grid(looks[0]) | grid(looks[1], seeds=4)
    runs = load_runs("results").set_index("run_id")
    of_plan = runs.loc[planned(), ["norm", "lr", "seed"]]
    assert {*of_plan.itertuples(index=False, name=None)} == grid(looks[1], seeds=4)
    before, plan, seen = times(), planned(), []
    monkeypatch.setattr(commands, "train_pass", lambda *a, f=commands.train_pass: seen.append(planned()) or f(*a))
    assert study(*adding)[1] == out
    assert times() == before
    assert seen == [plan] * 4
    assert planned() == plan


@pytest.mark.usefixtures("points")
@pytest.mark.parametrize(
    ("words", "first"),
    [
        (("refine=false",), 28),
        (("lr=0.01,0.1,1",), 12),
        (("study.claims=[]",), 28),
        (("study.claims=[at_same]",), 28),
    ],
)
def test_there_is_no_second_pass_without_a_fair_comparison_at_best_rates(study, words, first):
    status, _, err = study(*words)
    assert status == 0, err
    assert "Second pass" not in err
    assert len(planned()) == len(times()) == first
    assert "second pass" not in study(*words, "dry_run=true", "model.width=9")[1]


def test_a_sweep_without_a_study_has_no_second_pass(command):
    rates = ",".join(map(str, COARSE))
    status, _, err = command("-m", f"lr={rates}", "steps=3", "model.width=8", "probe=none")
    assert (status, "Second pass" in err) == (0, False)
    assert len(times()) == 7


def test_an_unknown_claim_is_refused_before_the_first_run(study):
    status, _, err = study("study.claims=[bettr]")
    assert (status, "claim bettr is unknown" in err, "did you mean better?" in err) == (2, True, True)
    assert not times()


def test_the_name_of_a_run_has_its_own_learning_rate():
    run = PlannedRun(spec_of("lr=0.1"), "model.x_lr=0.1 lr=0.1 seed=3", "model.x_lr=0.1 lr=0.1")
    finer = refine.at_rate(run, 0.178)
    assert (finer.name, finer.arm) == ("model.x_lr=0.1 lr=0.178 seed=3", "model.x_lr=0.1 lr=0.178")
    assert finer.spec == spec_of("lr=0.178")
