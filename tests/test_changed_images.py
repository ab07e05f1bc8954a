"""Images are replaced under one name, between two commands, within a run and between two stores."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import bnstudy
from bnstudy import cli
from bnstudy.claims.frames import load_study
from bnstudy.claims.verdicts import verdicts
from bnstudy.config.build import import_spec
from bnstudy.report.cautions import cautions
from bnstudy.report.compare import write_comparison
from bnstudy.report.findings import findings
from bnstudy.store.runs import Store
from bnstudy.train import checkpoint
from bnstudy.train.loop import Training, start_serial
from tests.conftest import CPU, spec_of

SHAPES = ("data=image_folder", "data.root=shapes", "batch_size=8", "model.width=8", "steps=20", "lr=0.1")


def draw_shapes(folder: Path, version: int) -> None:
    """Two classes of 8x8 images: dark and light ones, and a quarter of labels is wrong in the second version."""
    rng = np.random.default_rng(version)
    shutil.rmtree(folder, ignore_errors=True)
    for split, n in (("train", 40), ("test", 20)):
        for label, name in enumerate(("dark", "light")):
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                shade = 160 * (label ^ (version == 2 and i % 4 == 0)) + rng.integers(0, 60, (8, 8))
                Image.fromarray(shade.astype(np.uint8)).save(folder / split / name / f"{i}.png")


@pytest.fixture(scope="module")
def two_stores(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A store for each version of the images: seeds 0 to 2 on the first, 3 to 5 on the second, which is there now."""
    folder = tmp_path_factory.mktemp("replaced")
    stores = {1: folder / "first", 2: folder / "second"}
    for version, store in stores.items():
        draw_shapes(folder / "shapes", version)
        seeds = f"seed=range({3 * version - 3},{3 * version})"
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["bnstudy", "-m", *SHAPES, "norm=none,batch", seeds, f"results_dir={store}"])
            cli.main()
    return stores


@pytest.fixture(scope="module")
def merged(two_stores: dict[int, Path]) -> Path:
    folder = two_stores[1].with_name("merged")
    for store in two_stores.values():
        shutil.copytree(store / "runs", folder / "runs", dirs_exist_ok=True)
    return folder


def version_of(store: Path, ids: pd.Series) -> str:
    """The name that a report gives to the images of the store's runs."""
    run_id = next(i for i in Store(store).finished() if i in set(ids))
    return f"shapes (images {Store(store).summary(run_id)['dataset']['checksum'][:6]})"


def test_other_seeds_are_not_trained_on_other_images(command, two_stores, tmp_path):
    shutil.copytree(two_stores[1], tmp_path / "results")
    shutil.copytree(two_stores[1].with_name("shapes"), tmp_path / "shapes")
    first = Store(tmp_path / "results").finished()
    for more in ("seed=3", "seed=0", "data.train_size=40", "data.augment=crop_flip"):
        status, _, err = command(*SHAPES, more)
        assert status == 2
        assert f"data.name=shapes names other images than those that 6 runs ({first[0]}, {first[1]} and 4 more)" in err
        assert "give these another data.name, or use another results_dir" in err
    assert Store(tmp_path / "results").finished() == first
    assert command(*SHAPES, "data.name=noisy")[0] == 0
    assert command(*SHAPES, "data.size=4")[0] == 0  # other images because of a setting


def test_runs_on_other_images_share_no_arm_and_no_panel(two_stores, merged):
    study = load_study(merged)
    names = {version: version_of(store, study.runs["run_id"]) for version, store in two_stores.items()}
    assert set(study.runs["data"]) == {*names.values()}
    seeds = study.runs.groupby("arm", observed=True)["seed"].agg(lambda own: tuple(sorted(own)))
    assert sorted(seeds) == [(0, 1, 2), (0, 1, 2), (3, 4, 5), (3, 4, 5)]
    for version, store in two_stores.items():
        alone = [line.replace("shapes", names[version]) for line in findings(load_study(store))]
        assert [line for line in findings(study) if names[version] in line] == alone
    assert len(findings(study)) == 4


def test_a_verdict_is_on_one_version_of_the_images(two_stores, merged):
    judged = replace(load_study(merged), claims=("faster_convergence", "regularizes"))
    found = {(v.contrast.claim.name, v.contrast.case.data): v for v in verdicts(judged)}
    assert len(found) == 4
    for store in two_stores.values():
        alone = replace(load_study(store), claims=judged.claims)
        name = version_of(store, judged.runs["run_id"])
        for verdict in verdicts(alone):
            same = found[verdict.contrast.claim.name, name]
            assert (same.n, same.effect, same.low, same.high) == (3, verdict.effect, verdict.low, verdict.high)


def test_a_report_says_that_images_were_replaced(merged):
    study = load_study(merged)
    (sentence,) = study.mixed_images
    assert sentence.startswith("shapes has named different images, so that these runs must not be pooled or compared: ")
    assert sentence in cautions(study)
    arms = study.runs.groupby("data", observed=True)["arm"].agg(lambda arms: " vs ".join(sorted(map(str, {*arms}))))
    assert sentence in write_comparison(merged, arms.iloc[0]).cautions


def test_load_runs_warns_of_replaced_images(two_stores, merged):
    with pytest.warns(UserWarning, match=r"^shapes has named different images") as caught:
        runs = bnstudy.load_runs(merged)
    sizes = runs.groupby("dataset.checksum").size()
    assert all(f"{n} runs" in str(caught[0].message) for n in sizes)
    assert all(f"on images {checksum[:6]}" in str(caught[0].message) for checksum in sizes.index)
    assert len(bnstudy.load_runs(two_stores[1])) == len(bnstudy.load_runs(merged, Store(two_stores[1]).finished())) == 6


def test_a_run_is_not_resumed_on_other_images(command, tmp_path, monkeypatch, caplog):
    draw_shapes(tmp_path / "shapes", 1)
    spec = spec_of(*SHAPES, f"data.root={tmp_path / 'shapes'}", "seed=1")
    training = start_serial(spec, spec.data.load(tmp_path / "cache", CPU), CPU)
    monkeypatch.setattr(Training, "beat_seconds", 0.0)

    def stop(running: Training) -> None:
        if running.step == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(lambda _: None, stop)
    path = Store(tmp_path / "results").run(spec.run_id).checkpoint
    checkpoint.save(path, spec.run_id, training.dataset.checksum, training.state())
    shutil.copytree(tmp_path / "results", tmp_path / "same")

    status, _, err = command(*SHAPES, "seed=1", "results_dir=same")
    assert (status, "going on from step 12" in err, "set aside" in err) == (0, True, False)
    draw_shapes(tmp_path / "shapes", 2)
    status, _, err = command(*SHAPES, "seed=1")
    assert (status, "going on from step" in err) == (0, False)
    assert "the images of the dataset have changed since): set aside as checkpoint.bad.pt" in err + caplog.text
    assert command(*SHAPES, "seed=1", "results_dir=separate")[0] == 0
    resumed, separate = (Store(tmp_path / name) for name in ("results", "separate"))
    tables = [store.run(spec.run_id).metrics.read_bytes() for store in (resumed, separate)]
    assert tables[0] == tables[1]
    assert resumed.summary(spec.run_id)["dataset"] == separate.summary(spec.run_id)["dataset"]
    assert path.with_name("checkpoint.bad.pt").exists()


MINE = """\
from dataclasses import dataclass

import torch

from bnstudy.data.base import DataSpec
from bnstudy.data.dataset import Dataset, DecodedImages, Split
from bnstudy.data.digits import Digits

LABELS = (torch.arange(60) % 2){shuffled}


@dataclass(frozen=True)
class Tensors(DataSpec):
    def load(self, cache_dir, device):
        x = torch.randn(60, 1, 4, 4, generator=torch.Generator().manual_seed(0)) + 3 * (torch.arange(60) % 2).view(-1, 1, 1, 1)
        split = Split(x.to(device), LABELS.to(device))
        return Dataset("mine", 2, split, split, split, (0.0,), (1.0,))


@dataclass(frozen=True)
class Decoded(Digits):
    def decode(self):
        digits = super().decode()
        y = (digits.train_y % 2){shuffled}
        return DecodedImages(digits.train_x, y, digits.test_x, digits.test_y % 2, ("even", "odd"))
"""  # noqa: E501


@pytest.mark.parametrize("name", ["Tensors", "Decoded"])
def test_a_dataset_of_ones_own_with_shuffled_labels_does_not_return_the_old_result(command, tmp_path, name):
    (tmp_path / "conf" / "data").mkdir(parents=True)
    node = f"_target_: my_images.{name}\nroot: data\ntrain_size: null\nval_fraction: 0.2\naugment: none\n"
    (tmp_path / "conf" / "data" / "mine.yaml").write_text(node)
    arguments = ("--config-dir", "conf", "data=mine", "batch_size=16", "model.width=8", "steps=20", "lr=0.1")

    def write(shuffled: str) -> None:
        (tmp_path / "my_images.py").write_text(MINE.format(shuffled=shuffled))
        sys.modules.pop("my_images", None)
        import_spec.cache_clear()

    write("")
    assert command(*arguments)[0] == 0
    assert command(*arguments)[0] == 0
    write(".sort().values" if name == "Tensors" else ".flip(0)")
    status, _, err = command(*arguments)
    assert status == 2
    (run_id,) = Store(tmp_path / "results").finished()
    assert f"names other images than those that run {run_id} in results was trained on: use another results_dir" in err
    assert command(*arguments, "results_dir=shuffled")[0] == 0
    accuracy = [bnstudy.load_runs(store)["final.train_loss"].item() for store in ("results", "shuffled")]
    assert accuracy[0] < accuracy[1]


def test_finished_runs_are_shown_without_their_images(command, tmp_path):
    draw_shapes(tmp_path / "shapes", 1)
    assert command(*SHAPES)[0] == 0
    shutil.rmtree(tmp_path / "shapes")
    status, out, err = command(*SHAPES)
    assert status == 0
    assert "100.00%" in out
    assert "The finished runs cannot be compared with the dataset as it is now" in err
    assert command(*SHAPES, "seed=1")[0] == 2
