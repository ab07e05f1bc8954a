from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from bnstudy.config import conf_dir, request
from bnstudy.launch.plan import Datasets, Plan, check_data, make_plan
from bnstudy.launch.points import Point, plain_config
from bnstudy.launch.request import varying_names
from bnstudy.spec import ConfigError
from bnstudy.store import Store
from tests.conftest import CPU


def point(*overrides: str) -> Point:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return Point(overrides, plain_config(compose("config", ["steps=5", *overrides])))


def planned(points: list[Point]) -> Plan:
    return make_plan(request(points))


def test_names_are_the_overrides_that_differ_and_arms_leave_out_the_seed():
    points = [("norm=batch", f"lr={lr}", f"seed={seed}") for lr in (0.1, 1) for seed in (0, 1)]
    assert varying_names(points) == [
        ("lr=0.1 seed=0", "lr=0.1"),
        ("lr=0.1 seed=1", "lr=0.1"),
        ("lr=1 seed=0", "lr=1"),
        ("lr=1 seed=1", "lr=1"),
    ]


def test_a_run_that_two_points_ask_for_stands_once(tmp_path):
    plan = planned(
        [point("init=kaiming", f"results_dir={tmp_path}"), point("init=kaiming_normal", f"results_dir={tmp_path}")]
    )
    assert len(plan.runs) == len(plan.todo) == 1


def test_finished_runs_are_not_to_do(tmp_path):
    points = [point(f"seed={seed}", f"results_dir={tmp_path}") for seed in (0, 1)]
    store, finished = Store(tmp_path), planned(points).runs[0]
    store.run(finished.spec.run_id).folder.mkdir(parents=True)
    store.run(finished.spec.run_id).summary.write_text("{}")
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


def test_finished_runs_on_other_pictures_of_the_same_name_are_not_mixed_up(tmp_path, command):
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
    assert "data.name=pets names other pictures" in err
    assert command(*arguments, "data.name=pets2")[0] == 0


def test_a_sweep_has_one_set_of_settings():
    with pytest.raises(ConfigError, match="do not sweep them"):
        planned([point("threads=1"), point("threads=2")])
