from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from bnstudy import cli
from bnstudy.store.plans import Plans
from bnstudy.store.runs import Store
from bnstudy.sweep import adaptive
from bnstudy.sweep.progress import RunResult
from bnstudy.sweep.request import PlannedRun, Request
from bnstudy.sweep.settings import Settings, StudySpec
from bnstudy.validation import ConfigError
from tests import sweeps
from tests.conftest import spec_of

DEAD = StudySpec("made", "Is it?", ("dead_relus",), {}, {})


def request_of(seeds: range, **settings) -> Request:
    runs = tuple(PlannedRun(replace(spec_of(), seed=seed), f"seed={seed}", "") for seed in seeds)
    return Request(Settings(until="decided", **settings), runs, DEAD, "quick")


@dataclass
class Made:
    """A study with made results; `looks` lists the requested numbers of seeds."""

    made: sweeps.Made
    looks: list[int] = field(default_factory=list)
    planned: list[str] = field(default_factory=list)
    stop_at: int | None = None

    def run(self, request: Request, folders: Sequence[Path]) -> list[RunResult]:  # noqa: ARG002
        self.looks.append(len(request.runs))
        if len(self.looks) == self.stop_at:
            raise KeyboardInterrupt
        return [RunResult(str(i), "", "", "finished", 1.0, 1.0, Path()) for i in range(len(request.runs))]

    def plan_study(self, _: Request, run_ids: list[str]) -> None:
        self.planned = run_ids

    def load_study(self, _: Path, picked: list[str]):
        return replace(self.made, seeds=len(picked)).study()


@pytest.fixture
def decide(monkeypatch, capsys):
    """`decide(made, claims, ...)` returns the number of seeds of each look, and the printed lines."""

    def run(made: Made, claims: tuple[str, ...] = ("dead_relus",), own: int = 14, **settings):
        capsys.readouterr()
        monkeypatch.setattr(adaptive, "run", made.run)
        monkeypatch.setattr(adaptive, "plan_study", made.plan_study)
        monkeypatch.setattr(adaptive, "load_study", made.load_study)
        first = replace(request_of(range(own), **settings), study=replace(DEAD, claims=claims))
        adaptive.decide(first, lambda seeds: replace(request_of(seeds, **settings), study=first.study))
        return made.looks, capsys.readouterr().out.splitlines()

    return run


def statuses(lines: list[str]) -> list[str]:
    return [line.split(":")[0].strip() for line in lines if line.startswith("  ")]


def test_claims_that_are_decided_at_the_first_look_need_no_more_seeds(decide):
    looks, lines = decide(Made(sweeps.Made(fewer=0.15)))
    assert looks == [14]
    assert lines[0] == "Look 1, 14 seeds (0 to 13):"
    assert statuses(lines) == ["SUPPORTED", "SUPPORTED"]
    assert re.search(r"percentage points fewer units that died \([\d.]+ to [\d.]+\), 14 seeds\.", lines[1])
    assert lines[3:] == ["Decided: all 2 verdicts, with 14 seeds.", "For the report: bnstudy-report study=made"]


def test_seeds_are_added_until_claims_are_decided(decide):
    looks, lines = decide(Made(sweeps.Made(fewer=0.15, noise=0.09)))
    assert len(looks) > 1
    assert looks == list(range(14, looks[-1] + 1, 5))
    assert lines[3] == "0 of 2 verdicts decided; 5 more seeds."
    assert f"Decided: all 2 verdicts, with {looks[-1]} seeds." in lines
    assert statuses(lines)[-2:] == ["SUPPORTED", "SUPPORTED"]


def test_no_more_seeds_are_added_than_max_seeds(decide):
    looks, lines = decide(Made(sweeps.Made(fewer=0.05, noise=0.1)), max_seeds=21)
    assert looks == [14, 19, 21]
    assert "0 of 2 verdicts decided; 2 more seeds." in lines
    assert lines[-2] == "Stopped: 0 of 2 verdicts decided; max_seeds=21 is reached. A larger one goes on from here."


def test_the_plan_is_that_of_the_last_look(decide):
    made = Made(sweeps.Made(fewer=0.15, noise=0.09))
    looks, _ = decide(made)
    assert made.planned == [str(i) for i in range(looks[-1])]


def test_seeds_are_added_while_there_are_too_few_for_a_verdict(decide):
    looks, lines = decide(Made(sweeps.Made(fewer=0.15)), own=2, seeds_at_once=3)
    assert looks == [2, 5, 8, 11]
    assert statuses(lines)[-2:] == ["SUPPORTED", "SUPPORTED"]


def test_no_seeds_are_added_if_they_could_not_settle_the_open_verdicts(decide):
    looks, lines = decide(Made(sweeps.Made(best=(0.1, 3.16), fewer=0.15)))
    assert looks == [14]
    assert "lies on the edge of the grid" in "".join(lines)
    assert lines[3] == (
        "Stopped: 1 of 2 verdicts decided, and more seeds would not settle what is open, for the reason given."
    )


def test_seeds_are_added_if_they_may_settle_some_of_the_open_verdicts(decide):
    made = Made(sweeps.Made(best=(0.1, 3.16), fewer=0.05, noise=0.1))
    looks, lines = decide(made, max_seeds=19)
    assert looks == [14, 19]
    assert "0 of 2 verdicts decided, and more seeds would not settle 1 of the open ones, for" in lines[3]


def test_an_interrupted_command_typed_again_ends_the_same(decide):
    made = sweeps.Made(fewer=0.15, noise=0.09)
    looks, lines = decide(Made(made))
    with pytest.raises(KeyboardInterrupt):
        decide(Made(made, stop_at=2))
    assert decide(Made(made)) == (looks, lines)


def test_progress_false_prints_no_verdicts(decide):
    assert decide(Made(sweeps.Made(fewer=0.15)), progress=False) == ([14], [])


def test_the_last_look_is_at_max_seeds():
    settings = Settings(max_seeds=24, seeds_at_once=5)
    assert [*adaptive.look_seeds(range(3, 18), settings)] == [range(3, 18), range(3, 23), range(3, 27)]
    assert [*adaptive.look_seeds(range(24), settings)] == [range(24)]


def test_seeds_must_be_a_range_within_max_seeds():
    assert adaptive.requested_seeds(request_of(range(2, 9))) == range(2, 9)
    with pytest.raises(ConfigError, match="until=decided is not allowed with seed=0,2,4: seeds are added to a range"):
        adaptive.requested_seeds(request_of(range(0, 5, 2)))
    with pytest.raises(ConfigError, match="max_seeds=4 is not allowed: it must be at least 5, the seeds"):
        adaptive.requested_seeds(request_of(range(5), max_seeds=4))


SMALL = ("model.width=8", "steps=5", "probe=none")
REFUSED = [
    (("until=decided", "lr=0.1", *SMALL), "until=decided is not allowed with no study"),
    (("until=decided", "-m", "lr=0.1,1", *SMALL), "until=decided is not allowed with no study"),
    (("until=decided", "study=ioffe_fig1"), "with study=ioffe_fig1, which has no claims"),
    (("until=settled", "study=quickstart"), "until=settled is not allowed"),
    (("until=decided", "study=quickstart", "seeds_at_once=0"), "seeds_at_once=0 is not allowed"),
    (("until=decided", "study=quickstart", "seed=1,4", *SMALL), "seed=1,4: seeds are added to a range"),
    (("until=decided", "study=quickstart", "max_seeds=3", *SMALL), "max_seeds=3 is not allowed"),
    (("until=decided", "study=quickstart", "study.claims=[dead]", *SMALL), "claim dead is unknown: there is no"),
]


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED, ids=[" ".join(a[:3]) for a, _ in REFUSED])
def test_options_that_do_not_go_together_are_refused_in_a_sentence(command, arguments, sentence):
    status, out, err = command(*arguments)
    assert (status, out) == (2, "")
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
    assert not list(Path().glob("results/runs/*"))


def test_a_dry_run_describes_the_first_look(command):
    status, out, _ = command("study=quickstart", "until=decided", "dry_run=true", "seed=range(0,3)", *SMALL)
    assert status == 0
    assert out.startswith("102 runs: 0 finished, 102 to do")
    assert out.splitlines()[-1].startswith("That is the first look, with the seeds 0 to 2. Then 5 at a time")


STUDY = """# @package _global_
study:
  _target_: bnstudy.sweep.settings.StudySpec
  name: small
  title: Is a small network better with it?
  claims: [better]
  sweep: {norm: "none,batch", lr: "0.00316,0.01,0.0316,0.1,0.316,1,3.16", seed: "range(0,3)"}
  scales: {quick: {model.width: 8, model.depth: 1, steps: 4, probe: none}}
hydra:
  mode: MULTIRUN
"""
CLAIM = """
statement: It is better.
source: a test
study: small
metric: test_accuracy
better: higher
scale: difference
delta: 0.01
unit: percentage points
with: {norm: BatchNorm}
without: {norm: NoNorm}
views: [same_rate]
min_seeds: 4
"""


@pytest.mark.slow
@pytest.mark.usefixtures("blank_figures")
def test_a_study_goes_on_where_it_stopped_and_its_report_says_that_it_had_several_looks(command):
    for name, text in (("study/small", STUDY), ("claim/better", CLAIM)):
        path = Path("my_conf", f"{name}.yaml")
        path.parent.mkdir(parents=True)
        path.write_text(text)
    study = ("--config-dir", "my_conf", "study=small", "until=decided", "seeds_at_once=2")
    status, out, err = command(*study, "max_seeds=5")
    assert status == 0, err
    assert [line for line in out.splitlines() if line.startswith("Look")] == [
        "Look 1, 3 seeds (0 to 2):",
        "Look 2, 5 seeds (0 to 4):",
    ]
    assert "Stopped: 0 of 1 verdict decided; max_seeds=5 is reached." in out
    assert f"For the report: bnstudy-report study=small claims={Path('my_conf/claim').resolve()}" in out
    store = Store(Path("results"))
    trained = {run_id: store.run(run_id).summary.stat().st_mtime_ns for run_id in store.finished()}
    assert len(trained) == 2 * 7 * 5
    (plan,) = Plans(store.results_dir).load("small")
    assert (plan["looks"], plan["run_ids"]) == ("repeated", store.finished())
    assert plan["commands"] == [f"bnstudy {' '.join(study)} max_seeds=5"]
    assert command(*study, "max_seeds=5")[:2] == (0, out)
    assert trained == {run_id: store.run(run_id).summary.stat().st_mtime_ns for run_id in store.finished()}

    command("--config-dir", "my_conf", "study=small")  # the plan keeps `looks`
    assert Plans(store.results_dir).load("small")[0]["looks"] == "repeated"
    status, out, err = command("study=small", "claims=my_conf/claim", entry=cli.report)
    assert status == 0, err
    assert "The number of seeds was not fixed in advance" in out
    (judged,) = json.loads(Path("results/reports/small/claims.json").read_text())
    assert judged["n_seeds"] == 5
    assert judged["ci_low"] is None  # of four differences it has no end
