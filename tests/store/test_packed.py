from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bnstudy.claims.claim import load_claims
from bnstudy.claims.contrasts import contrasts
from bnstudy.claims.frames import load_study
from bnstudy.claims.metrics import final_training_loss, find_metric
from bnstudy.report.report import write_report
from bnstudy.store.archive import hash_of
from bnstudy.store.files import write_json
from bnstudy.store.loading import load_metrics, load_runs, load_specs, load_test_correct, load_timing
from bnstudy.store.packed import PackedStore, open_packed, open_store
from bnstudy.store.packing import pack
from bnstudy.store.plans import Plans
from bnstudy.store.runs import Store
from bnstudy.store.thin import BITS, LOSSES, MEAN, SUM
from bnstudy.store.unpacking import restore_thin, unpack
from bnstudy.validation import ConfigError
from tests import synthetic
from tests.synthetic import Run

RUNS = [Run(norm, lr, seed, total=400) for norm in ("NoNorm", "BatchNorm") for lr in (0.1, 0.3) for seed in range(3)]
RUNS[4] = Run("NoNorm", 0.3, 1, total=400, diverged_at=290)
OTHER = Run("LayerNorm", model="VGG", total=60, engine="stacked")
CLAIM = ["weight_decay_is_a_rate"]
LOADERS = (load_runs, load_metrics, load_timing, load_specs)


def pack_all(results_dir: Path, folder: Path, thin: bool = False) -> PackedStore:
    store, plans = Store(results_dir), Plans(results_dir)
    files = [path for name in plans.studies() for path in plans.files(name, "quick")]
    pack(store, store.finished(), files, folder, thin, lambda _: None)
    return open_packed(folder)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    ids = synthetic.write(folder, [*RUNS, OTHER])
    synthetic.plan(folder, "s", ids[:-1], claims=["faster_convergence", "regularizes_at_matched_loss"])
    synthetic.plan(folder, "other", ids[-1:])
    Plans(folder).mark_reported("s", "quick", ids[1:-1])
    return folder


@pytest.fixture(scope="module")
def packed_once(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_all(original, tmp_path_factory.mktemp("packed") / "p").results_dir


@pytest.fixture
def packed(packed_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed_once, tmp_path / "p"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def change(folder: Path, name: str, edit: Callable[[pd.DataFrame], Any]) -> None:
    """Change rows of a file as a stranger who knows the format would: with its new hash in packed.json."""
    table = pq.read_table(folder / name)
    frame = table.to_pandas()
    edit(frame)
    pq.write_table(pa.Table.from_pandas(frame, table.schema, preserve_index=False), folder / name)
    content = json.loads((folder / "packed.json").read_text())
    content["files"][name] = hash_of(folder / name)
    write_json(folder / "packed.json", content)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("some", [False, True])
def test_a_packed_store_is_loaded_as_the_folders_are(original, packed_once, loader, some):
    ids = [RUNS[i].run_id for i in (7, 0, 3)] if some else None
    pd.testing.assert_frame_equal(loader(packed_once, ids), loader(original, ids))


def test_single_tables_and_test_images_are_those_of_the_folders(original, packed_once):
    store, folders = open_store(packed_once), Store(original)
    for run_id in (RUNS[0].run_id, OTHER.run_id):
        assert store.table(run_id, "metrics").to_pandas().equals(folders.table(run_id, "metrics").to_pandas())
        assert store.check(run_id) == folders.check(run_id)
    bits, expected = load_test_correct(packed_once), load_test_correct(original)
    assert [*bits] == [*expected]
    assert all(np.array_equal(bits[r], expected[r]) for r in bits)


def test_unpacking_gives_every_file_as_it_was(original, packed, tmp_path):
    done = unpack(open_packed(packed), tmp_path / "new", lambda _: None)
    assert files_of(tmp_path / "new") == files_of(original)
    assert (done.runs, done.present) == (13, 0)
    plans = {path.relative_to(original): path.stat().st_mtime_ns for path in (original / "studies").rglob("*.json")}
    assert all((tmp_path / "new" / path).stat().st_mtime_ns == time for path, time in plans.items())


def test_unpacking_keeps_runs_that_are_finished_in_the_target(packed, tmp_path):
    own = Store(tmp_path / "new").run(RUNS[0].run_id).summary
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    done = unpack(open_packed(packed), tmp_path / "new", lambda _: None)
    assert own.read_text() == "mine"
    assert not (own.parent / "config.yaml").exists()
    assert (done.runs, done.present) == (12, 1)


def test_the_same_store_gives_the_same_bytes(original, packed_once, tmp_path):
    pack_all(original, tmp_path / "again")
    assert files_of(tmp_path / "again") == {k: v for k, v in files_of(packed_once).items() if "reports" not in k}


def test_packing_again_replaces_its_own_files_and_keeps_others(original, packed):
    (packed / "PROVENANCE.md").write_text("by hand")
    (packed / "figures").mkdir()
    assert pack_all(original, packed, thin=True).is_thin
    names = {path.name for path in packed.iterdir()}
    assert {"PROVENANCE.md", "figures", "packed.json", "metrics.parquet"} <= names
    assert "originals.parquet" not in names
    assert not any(name.startswith(".") for name in names)


def test_what_a_killed_pack_has_left_is_removed(original, packed):
    left = packed / f".metrics.parquet.{'0' * 16}"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    pack_all(original, packed)
    assert not left.exists()


def test_a_report_on_a_packed_store_has_the_bytes_of_that_on_the_folders(original, packed, tmp_path):
    copy = Path(shutil.copytree(original, tmp_path / "f"))
    before = files_of(packed)
    for folder in (packed, copy):
        write_report(folder, "s")
    drawn, expected = (files_of(f / "reports") for f in (packed, copy))
    assert drawn.keys() == expected.keys()
    assert len(drawn) > 4
    for name, content in drawn.items():
        assert content.replace(str(packed).encode(), b"") == expected[name].replace(str(copy).encode(), b""), name
    assert {k: v for k, v in files_of(packed).items() if not k.startswith("reports")} == before


@pytest.fixture(scope="module")
def thin(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_all(original, tmp_path_factory.mktemp("thin") / "p", thin=True).results_dir


def test_a_thin_store_has_some_training_losses_and_all_that_are_no_losses(original, thin):
    kept, full = load_metrics(thin), load_metrics(original)
    kept = kept[~kept["metric"].isin((MEAN, SUM))]
    columns = ["run_id", "step", "epoch", "split", "metric", "layer", "value"]
    others = [
        frame.loc[frame["metric"] != "loss", columns].astype(str).reset_index(drop=True) for frame in (kept, full)
    ]
    assert others[0].equals(others[1])
    assert {*kept.loc[kept["metric"] == "loss", "split"]} == {"train"}
    steps = kept[(kept["metric"] == "loss") & (kept["run_id"] == RUNS[0].run_id)]["step"]
    assert LOSSES * 0.6 < len(steps) < LOSSES + 40
    assert {0, 1, 2, 399} <= {*steps}


def test_training_losses_of_a_thin_store_are_rounded(original, thin):
    key = ["run_id", "step", "split", "metric"]
    kept, full = (frame[frame["metric"] == "loss"] for frame in (load_metrics(thin), load_metrics(original)))
    both = kept.merge(full, on=key, suffixes=("", "_full"))
    assert len(both) == len(kept) > 0
    assert both.loc[both["step"] == 0, "value"].equals(both.loc[both["step"] == 0, "value_full"])
    np.testing.assert_allclose(both["value"], both["value_full"], rtol=2**-BITS)
    assert not both["value"].equals(both["value_full"])


def test_times_of_stacked_runs_in_a_thin_store_are_rounded(original, thin):
    kept, full = load_timing(thin), load_timing(original)
    engine = load_runs(original).set_index("run_id")["engine"]
    assert {*engine} == {"serial", "stacked"}
    for name in ("seconds", "step_seconds"):
        np.testing.assert_allclose(kept[name], full[name], rtol=2**-BITS)
        is_exact = kept[name].eq(full[name]) | full[name].isna()
        alone = full["run_id"].map(engine).eq("serial")
        assert is_exact[alone].all()
        assert not is_exact[~alone].all()


def test_summaries_of_a_thin_store_have_no_hashes_of_files_that_it_lacks(original, thin):
    store = open_packed(thin)
    for run_id in store.finished():
        own = Store(original).summary(run_id)
        rest = {key: value for key, value in own.items() if key != "integrity"}
        if own["engine"] == "stacked":
            rest["seconds"] = {part: pytest.approx(seconds, rel=0.005) for part, seconds in own["seconds"].items()}
        assert store.summary(run_id) == rest


@pytest.mark.parametrize("name", ["mean_training_loss", "test_accuracy_at_training_loss", "updates_to_target"])
def test_metrics_of_claims_are_the_same_on_a_thin_store(original, thin, name):
    full, some, metric = load_study(original, "s"), load_study(thin, "s"), find_metric(name)
    assert some.is_thin
    assert not full.is_thin
    targets = {"training_loss": 0.5, "accuracy": 0.8, None: float("nan")}
    for _, runs in full.runs.groupby("arm", observed=True):
        target = targets[metric.target]
        if metric.target == "training_loss":
            target = pd.Series(target, index=runs["seed"])
            pd.testing.assert_series_equal(
                final_training_loss(runs, some.metrics_of.of(runs["run_id"])),
                final_training_loss(runs, full.metrics_of.of(runs["run_id"])),
                rtol=0,
                atol=0,
            )
        values = [metric(runs, study.metrics_of.of(runs["run_id"]), target) for study in (some, full)]
        pd.testing.assert_frame_equal(*values, rtol=0, atol=0)


def test_a_report_on_a_thin_store_has_the_same_verdicts_and_says_that_it_is_thin(original, thin, tmp_path):
    copy = Path(shutil.copytree(original, tmp_path / "f"))
    some, full = write_report(thin, "s"), write_report(copy, "s")
    assert (some.folder / "claims.json").read_bytes() == (full.folder / "claims.json").read_bytes()
    assert some.verdicts == full.verdicts
    assert [text for text in some.cautions if text not in full.cautions] == [
        "The store is thin: it has the training loss at 200 steps, within 0.4%, and its exact mean over all. "
        "Other losses are those at the end only. Claims have the same values as in the full store, or say that they "
        "need every loss; curves of the training loss are rougher."
    ]
    assert "training loss at 200 of them" in (some.folder / "index.html").read_text()


def test_a_claim_on_every_loss_has_no_verdict_on_thin_runs_and_the_same_one_on_whole_runs(tmp_path):
    arms = [(("optim.weight_decay", decay), ("schedule._target_", f"bnstudy.optim.{schedule}"))
            for decay in (0.0, 0.01) for schedule in ("Constant", "Exponential")]  # fmt: skip
    runs = [Run(norm, 0.1, s, fields=arm) for norm in ("NoNorm", "BatchNorm") for arm in arms for s in range(3)]
    ids = synthetic.write(tmp_path / "full", runs)
    synthetic.plan(tmp_path / "full", "s", ids, claims=["weight_decay_is_a_rate"])
    store, files, (claim,) = Store(tmp_path / "full"), Plans(tmp_path / "full").files("s", "quick"), load_claims(CLAIM)
    for name, whole in (("thin", ids[:1]), ("whole", ids)):
        pack(store, ids, files, tmp_path / name, True, lambda _: None, whole)
    made = {name: contrasts(load_study(tmp_path / name, "s"), claim)[0] for name in ("thin", "whole", "full")}
    assert made["thin"].obstacle == "weight_decay_mismatch reads losses, of which this thin store lacks most"
    assert "loss" not in made["full"].obstacle
    assert made["whole"].obstacle == made["full"].obstacle
    assert made["whole"].d.equals(made["full"].d)
    assert len(made["full"].d) == 3


def test_a_thin_store_restored_and_packed_again_is_the_same(thin, tmp_path):
    folders = [thin, tmp_path / "present", tmp_path / "again"]  # the first restoring adds present keys to summaries
    for number, (folder, again) in enumerate(pairwise(folders)):
        restore_thin(open_packed(folder), tmp_path / str(number), lambda _: None)
        pack_all(tmp_path / str(number), again, thin=True)
    for loader in LOADERS:
        pd.testing.assert_frame_equal(loader(tmp_path / "again"), loader(thin), check_like=True)
    assert files_of(tmp_path / "again") == files_of(tmp_path / "present")


def test_a_thin_store_is_not_unpacked(thin, tmp_path):
    with pytest.raises(ConfigError, match=r"is thin: it lacks most training losses.*bnstudy-report results_dir="):
        unpack(open_packed(thin), tmp_path / "new", lambda _: None)
    assert not (tmp_path / "new").exists()


NAMES = ["runs.parquet", "metrics.parquet", "timing.parquet", "plans.parquet", "originals.parquet"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["flip", "missing", "link"])
def test_a_damaged_file_is_named(packed, tmp_path, name, damage):
    path = packed / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.rename(tmp_path / "aside")
        if damage == "link":
            path.symlink_to(tmp_path / "aside")
    read: Any = write_report
    if name == "originals.parquet":
        read = lambda folder: unpack(open_packed(folder), tmp_path / "new", lambda _: None)  # noqa: E731
    with pytest.raises(ConfigError, match=rf"results_dir=.*damaged file, {name} \(it is .*get the folder again"):
        read(packed)
    assert not (tmp_path / "new").exists()


def test_a_later_format_is_refused_with_what_to_do(packed):
    content = json.loads((packed / "packed.json").read_text())
    write_json(packed / "packed.json", {**content, "schema": 2})
    with pytest.raises(ConfigError, match=r"has schema=2, and this version of bnstudy reads up to 1: install a later"):
        load_runs(packed)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"schema": 1}', '{"schema": 1, "thin": false, "runs": 1, "files": {"../x": "0"}}', "[" * 99999],
)
def test_a_packed_json_that_cannot_be_used_is_named(packed, content):
    (packed / "packed.json").write_text(content)
    with pytest.raises(ConfigError, match=r"damaged file, packed\.json"):
        load_runs(packed)


@pytest.mark.parametrize(
    ("name", "column", "value", "reason"),
    [
        ("runs.parquet", "run_id", "../../../x", "run_id=../../../x is not allowed"),
        ("runs.parquet", "run_id", RUNS[1].run_id, "its runs are not those of packed.json"),
        ("runs.parquet", "metrics", 10**9, "its rows are not those of metrics.parquet"),
        ("runs.parquet", "config", None, "it lacks values"),
        ("plans.parquet", "path", "studies/s/../../../x.json", "is not allowed"),
        ("plans.parquet", "path", "/etc/x.json", "is not allowed"),
        ("plans.parquet", "path", "studies/s/quick/.x.json", "is not allowed"),
        ("originals.parquet", "run_id", "0" * 12, "its runs are not those of runs.parquet"),
        ("originals.parquet", "metrics", b"other", "is not the file that was stored with its summary"),
    ],
)
def test_a_strangers_changes_are_noticed_before_anything_is_written(packed, tmp_path, name, column, value, reason):
    def edit(frame: pd.DataFrame) -> None:
        frame[column] = [value, *frame[column][1:]]
        if column == "metrics" and name == "runs.parquet":
            frame[column] = frame[column].astype("int64")

    change(packed, name, edit)
    with pytest.raises(ConfigError, match=reason):
        unpack(open_packed(packed), tmp_path / "new", lambda _: None)
    assert {path.name for path in tmp_path.iterdir()} == {"p"}


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        ("metrics.parquet", "value", None), ("metrics.parquet", "split", None), ("timing.parquet", "seconds", None),
        ("plans.parquet", "time", None), ("metrics.parquet", "metric", b"\xff"), ("runs.parquet", "run_id", b"\xff"),
        ("runs.parquet", "config", b"\xff"), ("runs.parquet", "summary", b"\xff"),
        ("plans.parquet", "text", b"\xff"), ("originals.parquet", "run_id", b"\xff"),
    ],
)  # fmt: skip
def test_missing_values_and_bytes_that_are_no_text_are_named(packed, tmp_path, name, column, value):
    table = pq.read_table(packed / name)
    place, kind = table.column_names.index(column), table[column].type
    values = table[column].to_pylist()
    if value is not None:  # no text, in a column of texts
        values = [value, *(text.encode() for text in values[1:])]
        array = pa.array(values, pa.binary())
        array = pa.Array.from_buffers(pa.string(), len(array), array.buffers())
    else:
        array = pa.array([None, *values[1:]], kind.value_type if pa.types.is_dictionary(kind) else kind)
    pq.write_table(table.set_column(place, column, array), packed / name)
    content = json.loads((packed / "packed.json").read_text())
    content["files"][name] = hash_of(packed / name)
    write_json(packed / "packed.json", content)

    def read(folder: Path) -> None:
        unpack(open_packed(folder), tmp_path / "new", lambda _: None)
        load_study(folder, "s")

    with pytest.raises(ConfigError, match=rf"damaged file, {name} \("):
        read(packed)


def test_a_run_with_the_settings_of_another_is_left_out_and_named(packed, tmp_path):
    def swap(frame: pd.DataFrame) -> None:
        frame.loc[[0, 1], "config"] = frame.loc[[1, 0], "config"].to_numpy()

    change(packed, "runs.parquet", swap)
    with pytest.warns(UserWarning, match=r"config: it is not the configuration of this run\): get the folder again"):
        assert len(load_runs(packed)) == 11
    with pytest.raises(ConfigError, match="it is not the configuration of this run"):
        unpack(open_packed(packed), tmp_path / "new", lambda _: None)


def test_nothing_is_written_through_a_link_in_the_target(packed, tmp_path):
    (tmp_path / "aside").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "runs").symlink_to(tmp_path / "aside")
    with pytest.raises(ConfigError, match="is a symbolic link"):
        unpack(open_packed(packed), tmp_path / "new", lambda _: None)
    assert not [*(tmp_path / "aside").iterdir()]


def test_a_damaged_run_is_left_out_of_the_pack_and_named(original, tmp_path):
    copy = Path(shutil.copytree(original, tmp_path / "f"))
    (copy / "runs" / RUNS[0].run_id / "timing.parquet").write_bytes(b"")
    done = pack(Store(copy), Store(copy).finished(), [], tmp_path / "p", False, lambda _: None)
    assert done.runs == 12
    assert [*done.damages] == [RUNS[0].run_id]
    assert len(load_runs(tmp_path / "p")) == 12


def test_a_store_with_runs_is_no_folder_for_a_pack(original, tmp_path):
    with pytest.raises(ConfigError, match=r"it is a store with runs of its own \(it has runs/\)\. Name another folder"):
        pack_all(original, original)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="it is a file"):
        pack_all(original, tmp_path / "file")


def test_a_packed_store_is_not_written(packed):
    store = open_store(packed)
    with pytest.raises(ConfigError, match=r"can only be read\. To make a store of it: bnstudy unpack"):
        store.begin(RUNS[0].run_id, RUNS[0].spec)
    with pytest.raises(ConfigError, match="can only be read"):
        synthetic.plan(packed, "mine", [RUNS[0].run_id])
    with pytest.raises(ConfigError, match="can only be read"):
        Plans(packed).mark_reported("s", "quick", [])


def test_plans_and_marks_are_those_of_the_folders(original, packed_once):
    packed, folders = Plans(packed_once), Plans(original)
    assert packed.studies() == folders.studies() == ["other", "s"]
    assert packed.load("s") == folders.load("s")
    assert packed.reported("s", "quick") == folders.reported("s", "quick") != []
