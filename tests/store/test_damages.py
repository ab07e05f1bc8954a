"""Every kind of damage to every file of a run: the file is named, and the other runs give the same results."""

from __future__ import annotations

import errno
import json
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir

import bnstudy
from bnstudy import cli
from bnstudy.claims.frames import load_study
from bnstudy.config.build import build_request
from bnstudy.config.compose import SweepPoint, to_plain
from bnstudy.store.files import conf_dir, write_json
from bnstudy.store.runs import Store
from bnstudy.sweep.command import run
from bnstudy.sweep.request import Request
from bnstudy.sweep.results import RunsFailed
from tests.conftest import Command
from tests.synthetic import edit_summary

Damage = Callable[[Path], object]
"""Damages a file of a run."""


def of_another_run(path: Path) -> Path:
    """The same file of another run."""
    return next(p for p in path.parents[1].glob(f"*/{path.name}") if p != path)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(of_another_run(path))


ANY_FILE: dict[str, Damage] = {
    "half of it": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "the last byte but one lost": lambda path: path.write_bytes(path.read_bytes()[:-2]),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "garbage": lambda path: path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size)),
    "a number": lambda path: path.write_text("1"),
    "an empty mapping": lambda path: path.write_text("{}"),
    "a list": lambda path: path.write_text("[1]"),
    "a flipped bit": flip,
    "another run's file": lambda path: shutil.copy(of_another_run(path), path),
    "a link to another run's file": make_link,
    "a folder": make_folder,
    "a pipe": make_fifo,
}


def edit_table(change: Callable[[pa.Table], pa.Table]) -> Damage:
    """A table of an earlier version, which has no hash, with a change."""

    def damage(path: Path) -> None:
        edit_summary(path.parents[2], path.parent.name)
        pq.write_table(change(pq.read_table(path)), path)

    return damage


def nulls(table: pa.Table, name: str) -> pa.Table:
    place, kind = table.schema.get_field_index(name), table.schema.field(name).type
    return table.set_column(place, name, pa.nulls(table.num_rows, kind))


TABLES: dict[str, Damage] = {
    "a column more": edit_table(lambda table: table.append_column("more", table["step"])),
    "a column fewer": edit_table(lambda table: table.drop_columns(["step"])),
    "columns in another order": edit_table(lambda table: table.select(table.column_names[::-1])),
    "another type": edit_table(lambda table: table.set_column(0, "step", table["step"].cast(pa.float64()))),
    "no steps": edit_table(lambda table: nulls(table, "step")),
    "no values": edit_table(lambda table: nulls(table, table.column_names[-1])),
    "no rows": edit_table(lambda table: table.slice(0, 0)),
}


def edit(**changes: Any) -> Damage:
    """A summary of an earlier version, which has no hash, edited by hand."""
    return lambda path: edit_summary(path.parents[2], path.parent.name, **changes)


def edit_sealed(change: Callable[[dict[str, Any]], object]) -> Damage:
    """A summary with its hash, edited by hand."""

    def damage(path: Path) -> None:
        summary = json.loads(path.read_text())
        change(summary)
        write_json(path, summary)

    return damage


def without(key: str) -> Damage:
    """A summary of an earlier version, which has no hash, that lost a part or a value of it."""

    def damage(path: Path) -> None:
        edit_summary(path.parents[2], path.parent.name)
        summary = json.loads(path.read_text())
        part, _, name = key.rpartition(".")
        del (summary[part] if part else summary)[name]
        write_json(path, summary)

    return damage


def null(key: str) -> Damage:
    def damage(path: Path) -> None:
        part, _, name = key.partition(".")
        edit(**{part: {**json.loads(path.read_text())[part], name: None}})(path)

    return damage


LOST = (
    *("final", "best", "seconds", "dataset", "engine", "device", "steps", "final.val_accuracy", "final.val_loss"),
    *("final.test_accuracy", "final.train_loss", "best.val_accuracy", "best.step", "seconds.total", "seconds.training"),
    *("dataset.name", "dataset.checksum", "dataset.classes", "dataset.test", "dataset.guessing"),
    *("diverged_step", "diverged_because"),
)
NULL = ("final.val_accuracy", "final.test_accuracy", "best.val_accuracy", "seconds.total", "seconds.training")

SUMMARIES: dict[str, Damage] = {
    "a learning rate": edit(lr=99),
    "a norm": edit(norm={"eps": 3}),
    "a dotted key of the norm": edit(**{"norm.position": "after"}),
    "other steps": edit(steps=7),
    "steps as text": edit(steps="3"),
    "an accuracy of 5": edit(final={"test_accuracy": 5}),
    "an accuracy below 0": edit(best={"val_accuracy": -0.1}),
    "an accuracy of NaN": edit(final={"test_accuracy": float("nan")}),
    "an accuracy as text": edit(final={"test_accuracy": "NaN"}),
    "infinite seconds": edit(seconds={"total": float("inf")}),
    "an unknown status": edit(status="done"),
    "no status": edit(status=None),
    "another run_id": edit(run_id="0123456789ab"),
    "no results": edit(final=None),
    "a better accuracy": edit_sealed(lambda s: s["final"].update(test_accuracy=0.99)),
    "another checksum": edit_sealed(lambda s: s["dataset"].update(checksum="00")),
    "no hashes": edit_sealed(lambda s: s["integrity"].pop("files")),
    **{f"no {key}": without(key) for key in LOST},
    **{f"null for {key}": null(key) for key in NULL},
    "a checksum of 5": edit(
        dataset={**dict.fromkeys(("train", "val", "test", "classes"), 9), "name": "", "checksum": 5}
    ),
    "learned as text": edit(learned="yes"),
    "a later schema": edit_sealed(lambda s: s["integrity"].update(schema=99)),
}

CONFIGS: dict[str, Damage] = {
    "another seed": lambda path: path.write_text(path.read_text().replace("seed: 0", "seed: 5")),
    "another width": lambda path: path.write_text(path.read_text().replace("width: ", "width: 1")),
    "a key more": lambda path: path.write_text(path.read_text() + "dropout: 0.5\n"),
    "missing": lambda path: path.unlink(),
}

CASES = [
    *product(["config.yaml", "summary.json", "metrics.parquet", "timing.parquet"], ANY_FILE.items()),
    *product(["metrics.parquet", "timing.parquet"], {**TABLES, "missing": CONFIGS["missing"]}.items()),
    *product(["summary.json"], SUMMARIES.items()),
    *product(["config.yaml"], CONFIGS.items()),
]
UNHASHED = {("metrics.parquet", damage) for damage in TABLES} | {("timing.parquet", damage) for damage in TABLES}
"""Damages of tables without a hash, which show only when the table is read."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Request:
    """Three stored runs that differ in their seeds."""
    results = tmp_path_factory.mktemp("trained")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        points = [
            (f"seed={seed}", "steps=3", "engine=serial", "progress=false", f"results_dir={results}")
            for seed in range(3)
        ]
        request = build_request([SweepPoint(point, to_plain(compose("config", [*point]))) for point in points])
    run(request)
    return request


def tables_of(results: Path, aside: str = "") -> list[pd.DataFrame]:
    """What the loaders give, without a run; `aside` must be left out by at least one of them."""
    loaders = (bnstudy.load_runs, bnstudy.load_metrics, bnstudy.load_timing)
    frames = [load(results) for load in loaders]
    correct = bnstudy.load_test_correct(results)
    frames.append(pd.DataFrame({"run_id": [*correct], "bits": [bits.tolist() for bits in correct.values()]}))
    rest = [frame[frame["run_id"] != aside].astype(object) for frame in frames]
    return [frame.where(frame.notna(), None).reset_index(drop=True) for frame in rest]


def assert_equal(frames: list[pd.DataFrame], expected: list[pd.DataFrame]) -> None:
    for frame, other in zip(frames, expected, strict=True):
        pd.testing.assert_frame_equal(frame, other, check_like=True)


@pytest.mark.parametrize(("name", "damage"), CASES, ids=[f"{name}: {damage}" for name, (damage, _) in CASES])
def test_a_damaged_file_is_named_and_the_other_runs_give_the_same(
    tmp_path: Path, trained: Request, name: str, damage: tuple[str, Damage]
) -> None:
    bad = trained.runs[0].spec.run_id
    results = Path(shutil.copytree(trained.settings.results, tmp_path / "results"))
    expected = tables_of(results, aside=bad)
    path = Store(results).run(bad).folder / name
    damage[1](path)

    with pytest.warns(UserWarning, match=rf"Run {bad} in .*\({name}: .* It is left out\.") as warned:
        found = tables_of(results, aside=bad)
    assert_equal(found, expected)
    assert {(str(w.message).split()[1], w.filename) for w in warned} == {(bad, __file__)}

    study = load_study(results)
    assert [*study.damages] == [bad]
    assert f"({name}: " in study.damages[bad]
    assert (len(study.runs), study.n_missing) == (2, 1)
    assert {*study.metrics["run_id"]} == {*study.timing["run_id"]} == {*study.runs["run_id"]} == {*study.test_correct}

    request = replace(trained, settings=replace(trained.settings, results_dir=str(results)))
    if (name, damage[0]) not in UNHASHED:
        with pytest.raises(RunsFailed, match=rf"1 of 3 runs failed; .*\n  seed=0: Run {bad} in .*\({name}: "):
            run(request)
    assert path.exists() or damage[0] == "missing"


def test_a_bit_flip_anywhere_in_a_finished_run_is_noticed_or_changes_no_number(
    tmp_path: Path, trained: Request
) -> None:
    rng = np.random.default_rng(0)
    results = Path(shutil.copytree(trained.settings.results, tmp_path / "results"))
    bad = trained.runs[0].spec.run_id
    whole, noticed = tables_of(results), 0
    for name in ("config.yaml", "summary.json", "metrics.parquet", "timing.parquet"):
        path = Store(results).run(bad).folder / name
        content = path.read_bytes()
        for place in rng.integers(0, 8 * len(content), 25):
            flipped = bytearray(content)
            flipped[place // 8] ^= 1 << place % 8
            path.write_bytes(flipped)
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                found = tables_of(results)
            if warned:
                noticed += 1
            else:
                assert_equal(found, whole)
        path.write_bytes(content)
    assert noticed > 95


def test_a_file_that_cannot_be_read_now_is_not_called_damaged(
    trained: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, *_ = (planned.spec.run_id for planned in trained.runs)
    results = trained.settings.results

    def read_bytes(path: Path, original: Callable[[Path], bytes] = Path.read_bytes) -> bytes:
        if path == Store(results).run(bad).metrics:
            raise PermissionError(errno.EACCES, "Permission denied")
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    sentence = rf"Run {bad} in .* cannot be read \(metrics.parquet: Permission denied\): make the file readable\."
    with pytest.warns(UserWarning, match=sentence):
        assert bad not in set(bnstudy.load_metrics(results)["run_id"])


def test_a_run_of_a_later_version_is_not_to_be_deleted(tmp_path: Path, trained: Request) -> None:
    results = Path(shutil.copytree(trained.settings.results, tmp_path / "results"))
    bad, *_ = (planned.spec.run_id for planned in trained.runs)
    SUMMARIES["a later schema"](Store(results).run(bad).summary)
    with pytest.warns(UserWarning, match="was stored by a later version of bnstudy") as warned:
        bnstudy.load_runs(results)
    assert "delete" not in str(warned[0].message)


@pytest.mark.usefixtures("blank_figures")
def test_the_report_and_the_command_name_each_damaged_file_and_go_on(command: Command) -> None:
    arguments = ("-m", "seed=range(0,6)", "steps=3", "engine=serial")
    assert command(*arguments)[0] == 0
    whole = bnstudy.load_runs().set_index("run_id")
    ids = dict(zip(("config.yaml", "summary.json", "metrics.parquet", "timing.parquet"), whole.index, strict=False))
    for name, run_id in ids.items():
        flip(Path("results/runs", run_id, name))
    before = {path: path.read_bytes() for path in Path("results/runs").rglob("*.*")}
    sentences = [f"Run {run_id} in results/runs/{run_id} is damaged ({name}: " for name, run_id in ids.items()]

    status, _, err = command(*arguments)
    assert (status, "Traceback" in err) == (1, False)
    assert "4 of 6 runs failed; the others are stored" in err
    assert all(sentence in err for sentence in sentences)
    assert before == {path: path.read_bytes() for path in Path("results/runs").rglob("*.*")}

    temporary = Path("results/reports/all/figures/.curves.svg.0123456789abcdef")
    temporary.parent.mkdir(parents=True)
    temporary.touch()
    os.utime(temporary, (0, 0))
    status, out, err = command(entry=cli.report)
    assert (status, "Traceback" in err) == (0, False)
    page = Path("results/reports/all/index.html").read_text()
    assert all(sentence in out and sentence in page for sentence in sentences)
    assert not temporary.exists()
    shown = pd.read_csv("results/reports/all/runs.csv").set_index("run_id")["final.test_accuracy"]
    pd.testing.assert_series_equal(shown, whole["final.test_accuracy"].drop([*ids.values()]))
