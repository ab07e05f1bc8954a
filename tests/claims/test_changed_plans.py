from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from bnstudy.claims.changed_plans import describe_seeds, find_changes, mark_reported
from bnstudy.claims.frames import load_study
from bnstudy.store.plans import Plans
from bnstudy.store.runs import Store
from tests import synthetic
from tests.synthetic import Run

SEEDS_EXTENDED = (
    "This study was extended after a report on seeds 0 to 2 was drawn (now seeds 0 to 4): seeds that are chosen "
    "because of a result make its verdicts too sure. until=decided adds seeds validly."
)
FIRST = [Run(norm, seed=seed, total=20) for norm in ("NoNorm", "BatchNorm") for seed in range(3)]
MORE_SEEDS = [Run(norm, seed=seed, total=20) for norm in ("NoNorm", "BatchNorm") for seed in (3, 4)]


def plan(folder: Path, runs: Iterable[Run], command: str = "bnstudy study=s", **about: str) -> None:
    ids = synthetic.write(folder, runs)
    Plans(folder).add({"name": "s", "title": "Is it?", **about}, "quick", command, ids)


def report(folder: Path) -> list[str]:
    """The changes that a report would name; it leaves its mark."""
    store, study = Store(folder), load_study(folder, "s")
    changes = find_changes(store, study)
    mark_reported(store, study)
    return changes


@pytest.fixture
def reported(tmp_path: Path) -> Path:
    plan(tmp_path, FIRST)
    assert report(tmp_path) == []
    return tmp_path


def marks(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "studies/s/quick/reported").glob("*")}


@pytest.mark.parametrize("command", ["bnstudy study=s", "bnstudy study=s 'seed=range(3,5)'"])
def test_seeds_added_after_a_report_are_named_in_each_later_one(reported: Path, command: str) -> None:
    plan(reported, FIRST * (command == "bnstudy study=s") + MORE_SEEDS, command)
    assert report(reported) == report(reported) == [SEEDS_EXTENDED]


def test_seeds_added_before_any_report_are_not_named(tmp_path: Path) -> None:
    plan(tmp_path, FIRST)
    plan(tmp_path, MORE_SEEDS, "bnstudy study=s 'seed=range(3,5)'")
    assert report(tmp_path) == report(tmp_path) == []


def test_seeds_of_one_arm_alone_are_named(reported: Path) -> None:
    plan(reported, [run for run in MORE_SEEDS if run.norm == "BatchNorm"], "bnstudy study=s norm=batch")
    assert report(reported) == [SEEDS_EXTENDED]


def test_seeds_left_out_after_a_report_are_named(reported: Path) -> None:
    plan(reported, [run for run in FIRST if run.seed > 0])
    (change,) = report(reported)
    assert change.startswith("This study was changed after a report on seeds 0 to 2 was drawn (now seeds 1, 2):")


@pytest.mark.parametrize(
    ("runs", "verb"),
    [
        ([*FIRST, Run("LayerNorm", total=20)], "added to"),
        (FIRST[:3], "left out of"),
        ([*FIRST[:3], Run("LayerNorm", total=20)], "changed in"),
    ],
)
def test_other_arms_after_a_report_are_named(reported: Path, runs: list[Run], verb: str) -> None:
    plan(reported, runs)
    (change,) = report(reported)
    assert change.startswith(f"Arms were {verb} this study after a report was drawn:")


@pytest.mark.parametrize(
    "more",
    [
        [Run(norm, lr=0.178, seed=seed, total=20) for norm in ("NoNorm", "BatchNorm") for seed in range(3)],
        [Run(norm, seed=seed, total=20, probed="norms") for norm in ("NoNorm", "BatchNorm") for seed in range(3)],
    ],
    ids=["learning rates", "measurements"],
)
def test_more_learning_rates_or_measurements_are_no_change(reported: Path, more: list[Run]) -> None:
    plan(reported, [*FIRST, *more])
    assert report(reported) == report(reported) == []


def test_missing_runs_that_are_filled_in_are_no_change(tmp_path: Path) -> None:
    synthetic.write(tmp_path, FIRST[:4])
    Plans(tmp_path).add({"name": "s", "title": ""}, "quick", "bnstudy study=s", [r.run_id for r in FIRST])
    assert report(tmp_path) == []
    synthetic.write(tmp_path, FIRST)
    assert report(tmp_path) == []


def test_seeds_added_until_the_claims_are_decided_are_no_change(reported: Path) -> None:
    plan(reported, [*FIRST, *MORE_SEEDS], "bnstudy study=s until=decided", looks="repeated")
    assert report(reported) == []
    assert len(marks(reported)) == 1


def test_a_plan_has_one_mark_that_stays_as_it_is(reported: Path) -> None:
    first = marks(reported)
    report(reported)
    assert marks(reported) == first
    (mark,) = map(json.loads, first.values())
    assert mark["run_ids"] == sorted(run.run_id for run in FIRST)


def test_marks_are_no_plans(reported: Path) -> None:
    assert Plans(reported).studies() == ["s"]
    assert [p["scale"] for p in Plans(reported).load("s")] == ["quick"]


def test_a_store_that_cannot_be_written_has_a_report_all_the_same(tmp_path: Path) -> None:
    plan(tmp_path, FIRST)
    (tmp_path / "studies/s/quick/reported").touch()  # a file in place of the folder, as a read-only one refuses
    assert report(tmp_path) == []


@pytest.mark.parametrize(
    ("seeds", "text"), [({3}, "seed 3"), ({0, 1, 2}, "seeds 0 to 2"), ({0, 4, 2}, "seeds 0, 2, 4")]
)
def test_seeds_are_named_by_their_range(seeds: set[int], text: str) -> None:
    assert describe_seeds(seeds) == text


def test_a_variant_that_extends_the_seeds_of_a_reported_study_is_named(reported: Path) -> None:
    ids = synthetic.write(reported, FIRST + MORE_SEEDS)
    about = {"name": "s-seed-range-0-5", "title": "Is it?", "variant_of": "s"}
    Plans(reported).add(about, "quick", "bnstudy study=s 'seed=range(0,5)'", ids)
    assert find_changes(Store(reported), load_study(reported, "s-seed-range-0-5")) == [SEEDS_EXTENDED]
    assert report(reported) == []


def test_a_variant_that_was_planned_before_the_report_is_no_change(tmp_path: Path) -> None:
    ids = synthetic.write(tmp_path, FIRST + MORE_SEEDS)
    about = {"name": "s-seed-range-0-5", "title": "Is it?", "variant_of": "s"}
    Plans(tmp_path).add(about, "quick", "bnstudy study=s 'seed=range(0,5)'", ids)
    store, variant = Store(tmp_path), load_study(tmp_path, about["name"])
    assert find_changes(store, variant) == []
    mark_reported(store, variant)
    plan(tmp_path, FIRST)
    report(tmp_path)
    assert find_changes(store, variant) == []
    Plans(tmp_path).add(about, "quick", "bnstudy study=s 'seed=range(0,5)'", ids)  # the sweep goes on
    assert find_changes(store, variant) == []


def test_arms_that_only_a_variant_has_are_not_named(reported: Path) -> None:
    ids = synthetic.write(reported, [Run("GroupNorm", seed=seed, total=20) for seed in range(3)])
    about = {"name": "s-norm-group", "title": "Is it?", "variant_of": "s"}
    Plans(reported).add(about, "quick", "bnstudy study=s norm=group", ids)
    assert find_changes(Store(reported), load_study(reported, "s-norm-group")) == []
