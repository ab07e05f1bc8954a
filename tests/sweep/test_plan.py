from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from PIL import Image
from torch import Tensor, nn

from bnstudy.config.build import build_request
from bnstudy.config.compose import SweepPoint, to_plain
from bnstudy.data.digits import Digits
from bnstudy.data.gaussian import Gaussian
from bnstudy.models.base import ModelSpec
from bnstudy.norms.base import NormSpec
from bnstudy.store.files import conf_dir, write_json
from bnstudy.store.integrity import seal
from bnstudy.store.runs import Store
from bnstudy.sweep.describe import expected_seconds
from bnstudy.sweep.plan import (
    Datasets,
    Plan,
    Stack,
    check_data,
    check_images,
    make_plan,
    make_stacks,
    try_network,
)
from bnstudy.sweep.request import PlannedRun, varying_names
from bnstudy.sweep.settings import Settings
from bnstudy.validation import ConfigError, to_dict
from tests import synthetic
from tests.conftest import CPU, spec_of


def point(*overrides: str) -> SweepPoint:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return SweepPoint(overrides, to_plain(compose("config", ["steps=5", *overrides])))


def planned(points: list[SweepPoint]) -> Plan:
    return make_plan(build_request(points))


def test_names_are_the_overrides_that_differ_and_arms_leave_out_the_seed():
    points = [("norm=batch", f"lr={lr}", f"seed={seed}") for lr in (0.1, 1) for seed in (0, 1)]
    assert varying_names(points) == [
        ("lr=0.1 seed=0", "lr=0.1"),
        ("lr=0.1 seed=1", "lr=0.1"),
        ("lr=1 seed=0", "lr=1"),
        ("lr=1 seed=1", "lr=1"),
    ]


def test_a_run_that_two_points_request_is_planned_once(tmp_path):
    plan = planned(
        [point("init=kaiming", f"results_dir={tmp_path}"), point("init=kaiming_normal", f"results_dir={tmp_path}")]
    )
    assert len(plan.runs) == len(plan.todo) == 1


def test_finished_runs_are_not_trained_again(tmp_path):
    points = [point(f"seed={seed}", f"results_dir={tmp_path}") for seed in (0, 1)]
    mark_finished(tmp_path, planned(points).runs[:1])
    assert [run.spec.seed for run in planned(points).todo] == [1]


def test_a_dataset_is_loaded_once_for_all_runs_that_share_it(tmp_path, monkeypatch):
    points = [point(f"seed={s}", f"model={m}", f"results_dir={tmp_path}") for s in range(3) for m in ("mlp", "vgg")]
    loads = []
    cls = type(planned(points).runs[0].spec.data)
    original = cls.load
    monkeypatch.setattr(cls, "load", lambda *a: loads.append(a) or original(*a))
    datasets = Datasets(tmp_path / "cache", CPU)
    plan = planned(points)
    check_data(plan, datasets)
    for run in plan.todo:
        datasets.get(run.spec.data)
    assert len(loads) == 1


def test_a_dataset_with_changed_images_needs_another_name(tmp_path, command):
    for split in ("train", "test"):
        for label, colour in (("dark", 30), ("light", 220)):
            folder = tmp_path / "pets" / split / label
            folder.mkdir(parents=True)
            for i in range(20):
                Image.new("L", (8, 8), colour + i).save(folder / f"{i}.png")
    arguments = ("data=image_folder", "data.root=pets", "batch_size=8", "steps=5", "lr=0.01", "norm=none")
    assert command(*arguments)[0] == 0
    assert command(*arguments)[0] == 0
    Image.new("L", (8, 8), 0).save(tmp_path / "pets" / "train" / "light" / "0.png")
    status, _, err = command(*arguments)
    assert status == 2
    assert "data.name=pets names other images" in err
    assert command(*arguments, "data.name=pets2")[0] == 0


@pytest.mark.parametrize(
    ("stored", "present", "accepted"),
    [
        ({"checksum": "d"}, {Digits(): "d"}, True),
        ({"checksum": "e"}, {Digits(): "d"}, False),
        ({"checksum": "e"}, {Digits(train_size=100, val_fraction=0.5, augment="crop_flip"): "d"}, False),
        ({"checksum": "splits:e"}, {Digits(): "splits:d"}, False),
        ({"checksum": "splits:e"}, {Digits(train_size=100): "splits:d"}, True),
        ({"checksum": "e"}, {Gaussian(): "d"}, True),
        ({"checksum": "g"}, {Digits(): "d", Gaussian(): "g"}, False),
        ({"checksum": ""}, {Digits(): "d"}, True),
        ({}, {Digits(): "d"}, True),
        ({"checksum": "e"}, {}, True),
    ],
)
def test_finished_runs_on_other_images_are_found_by_the_settings_of_their_dataset(tmp_path, stored, present, accepted):
    ids = synthetic.write(tmp_path, [synthetic.Run(seed=seed) for seed in range(3)])
    for run_id in ids:
        dataset = Store(tmp_path).summary(run_id)["dataset"]
        del dataset["checksum"]
        synthetic.edit_summary(tmp_path, run_id, dataset={**dataset, **stored})
    with nullcontext() if accepted else pytest.raises(ConfigError, match=r"The dataset Digits names other .* 3 runs"):
        check_images(Plan(Settings(results_dir=str(tmp_path)), (), ()), present)


def test_the_check_of_the_images_does_not_wait_for_a_pipe_in_place_of_a_summary(tmp_path):
    [run_id] = synthetic.write(tmp_path, [synthetic.Run()])
    summary = Store(tmp_path).run(run_id).summary
    summary.unlink()
    os.mkfifo(summary)
    check_images(Plan(Settings(results_dir=str(tmp_path)), (), ()), {Digits(): "d"})


def test_runs_on_generated_data_of_another_checksum_are_accepted(tmp_path):
    data = Gaussian()
    synthetic.write(tmp_path, [synthetic.Run(fields=(("data", to_dict(data)),))])
    check_images(Plan(Settings(results_dir=str(tmp_path)), (), ()), {data: "another", Digits(): "d"})


def test_settings_cannot_be_swept():
    with pytest.raises(ConfigError, match="threads cannot be swept"):
        planned([point("threads=1"), point("threads=2")])


def swept(results: Path, *sweeps: str) -> list[SweepPoint]:
    """The points of the product of `key=value,value` sweeps."""
    lists = [[f"{s.split('=')[0]}={value}" for value in s.split("=")[1].split(",")] for s in sweeps]
    return [point(*own, f"results_dir={results}") for own in product(*lists)]


def stacks_of(points: list[SweepPoint], workers: int = 1) -> list[Stack]:
    plan = planned(points)
    datasets = Datasets(plan.settings.cache, CPU)
    return make_stacks(plan, check_data(plan, datasets), "cpu", workers, workers, datasets.inputs)


def mark_finished(results: Path, runs: Sequence[PlannedRun]) -> None:
    for run in runs:
        summary = {"status": "finished", "seconds": {"total": 2.0}, "dataset": {"checksum": ""}}
        write_json(Store(results).run(run.spec.run_id).summary, seal(summary, run.spec.run_id, {}))


def test_runs_of_a_kind_are_divided_into_stacks_of_equal_size(tmp_path):
    points = swept(tmp_path, "norm=none,batch", "lr=0.01,0.1", "init=kaiming,orthogonal", "seed=0,1")
    stacks = stacks_of(points, workers=2)
    keys = [{run.spec.stack_key for run in stack.runs} for stack in stacks]
    requested = {run.spec.run_id for run in planned(points).runs}
    trained = [run_id for stack in stacks for run_id in stack.run_ids]
    assert [len(stack.runs) for stack in stacks] == [4, 4, 4, 4]
    assert all(len(own) == 1 for own in keys)
    assert sorted(trained) == sorted(requested)


def test_the_longest_stacks_come_first_and_stacks_on_the_same_data_together(tmp_path):
    points = swept(tmp_path, "data.train_size=500,800", "model.width=16,64,32", "seed=0,1")
    stacks = stacks_of(points)
    seen = [(s.runs[0].spec.data.train_size, s.runs[0].spec.model.width) for s in stacks]
    assert seen == [(size, width) for size in (500, 800) for width in (64, 32, 16)]


def test_a_single_worker_trains_serial_runs_in_the_order_of_the_command_line(tmp_path):
    points = swept(tmp_path, "engine=serial", "seed=0,1", "data.train_size=500,800", "model.width=16,32")
    in_turn = [(size, width) for size in (500, 800) for width in (16, 32, 16, 32)]
    longest_first = [(size, width) for size in (500, 800) for width in (32, 32, 16, 16)]
    for workers, expected in ((1, in_turn), (2, longest_first)):
        specs = [run.spec for stack in stacks_of(points, workers) for run in stack.runs]
        assert [(spec.data.train_size, spec.model.width) for spec in specs] == expected


def test_a_single_worker_trains_stacks_before_serial_runs(tmp_path):
    stacks = stacks_of(swept(tmp_path, "model=vgg,mlp", "seed=0,1", "norm=none,batch"))
    assert [s.method.engine for s in stacks] == ["stacked"] * 2 + ["serial"] * 4
    assert [s.runs[0].spec.norm.label for s in stacks[2:]] == ["NoNorm", "BatchNorm"] * 2


TIMING = """\
# @package _global_
study:
  _target_: bnstudy.sweep.settings.StudySpec
  name: timing
  title: What does a step cost?
  claims: []
  sweep: {engine: serial, threads: 1, seed: "0,1", norm: "none,batch"}
  scales:
    quick: {steps: 1000000}
hydra:
  mode: MULTIRUN
  launcher:
    executor: inprocess
"""


def test_a_study_can_choose_its_executor_and_its_arms_take_turns(command, tmp_path):
    (tmp_path / "conf" / "study").mkdir(parents=True)
    (tmp_path / "conf" / "study" / "timing.yaml").write_text(TIMING)
    status, out, _ = command("--config-dir", "conf", "study=timing", "dry_run=true")
    assert status == 0
    assert out.startswith("4 runs: 0 finished, 4 to do, one by one, on cpu.")  # else in several processes


def test_the_method_does_not_depend_on_which_runs_are_finished(tmp_path):
    points = swept(tmp_path, "seed=" + ",".join(map(str, range(9))))
    (before,) = stacks_of(points)
    mark_finished(tmp_path, before.runs[:5])
    (after,) = stacks_of(points)
    assert after.runs == before.runs[5:]
    assert after.method == before.method


@pytest.mark.parametrize(
    ("overrides", "engine", "sizes"),
    [
        (("seed=0",), "serial", [1]),
        (("seed=0,1,2,3", "engine=auto", "model=mlp"), "stacked", [4]),
        (("seed=0,1,2,3", "engine=serial", "model=mlp"), "serial", [1, 1, 1, 1]),
        (
            ("seed=0,1,2,3", "engine=auto", "model=vgg"),
            "serial",
            [1, 1, 1, 1],
        ),  # convolutions fill a core
        (("seed=0,1,2,3", "engine=stacked", "model=vgg"), "stacked", [4]),
    ],
)
def test_the_engine_depends_on_the_network_and_the_number_of_runs_or_is_given(tmp_path, overrides, engine, sizes):
    stacks = stacks_of(swept(tmp_path, *overrides))
    assert {stack.method.engine for stack in stacks} == {engine}
    assert [len(stack.runs) for stack in stacks] == sizes


@dataclass(frozen=True)
class Branching(ModelSpec):
    """A network that branches on values, with convolutions, which are tried on the meta device first."""

    def build(self, norm: NormSpec, shape: tuple[int, int, int], classes: int) -> nn.Module:  # noqa: ARG002
        class Net(nn.Sequential):
            def forward(self, x: Tensor) -> Tensor:
                assert x.abs().max().item() < math.inf
                return super().forward(x)

        return Net(nn.Conv2d(shape[0], 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))


def test_a_network_that_branches_on_values_is_tried_with_real_numbers():
    run = replace(spec_of(), model=Branching())
    network = try_network(run, (1, 8, 8), 10)
    assert network.products == 36 * 8 * 9 + 8 * 10
    with pytest.raises(ConfigError, match="cannot take images of 2x2"):
        try_network(run, (1, 2, 2), 10)


def test_the_expected_time_follows_from_finished_runs_of_the_same_kinds(tmp_path):
    points = swept(tmp_path, "norm=none,batch", "seed=0,1,2,3")
    runs = planned(points).runs
    mark_finished(tmp_path, runs[:2])
    assert math.isnan(expected_seconds(planned(points), 1))
    mark_finished(tmp_path, runs[4:5])
    assert expected_seconds(planned(points), 1) == (2 + 3) * 2.0
    assert expected_seconds(planned(points), 2) == 5.0


def test_the_expected_time_is_printed_once_runs_of_the_kind_are_finished(command):
    few, more = ("-m", "seed=0,1", "steps=5"), ("-m", "seed=0,1,2,3", "steps=5")
    assert "Expected to take" not in command(*few)[2]
    assert re.search(r"Expected to take about \d+ s\.", command(*more)[2])
