from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from bnstudy.store import files
from bnstudy.store.identity import digest, run_id_of
from bnstudy.store.integrity import DamagedRun, WrongContent, check_summary, seal
from bnstudy.store.runs import SharedStore, Store
from bnstudy.validation import to_dict
from tests import synthetic
from tests.conftest import spec_of
from tests.synthetic import Run


def test_the_record_has_the_hashes_of_the_files(tmp_path: Path) -> None:
    [run_id] = synthetic.write(tmp_path, [Run()])
    paths = Store(tmp_path).run(run_id)
    record = json.loads(paths.summary.read_text())["integrity"]
    for path in (paths.metrics, paths.timing):
        assert record["files"][path.name] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_record_has_the_hash_of_the_rest_of_the_summary(tmp_path: Path) -> None:
    [run_id] = synthetic.write(tmp_path, [Run()])
    summary = json.loads(Store(tmp_path).run(run_id).summary.read_text())
    sha256 = summary["integrity"].pop("sha256")
    text = json.dumps(summary, sort_keys=True, separators=(",", ":"))
    assert sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_a_sealed_summary_is_accepted_however_it_is_formatted() -> None:
    sealed = seal({"status": "finished", "final": {"test_accuracy": 1 / 3}, "other": [1, None, "ü"]}, "abc", {"a": b""})
    for text in (json.dumps(sealed), json.dumps(dict(reversed(sealed.items())), indent=3, ensure_ascii=False)):
        assert check_summary(json.loads(text), "abc") == sealed


def test_each_change_of_a_sealed_summary_is_noticed() -> None:
    sealed = seal({"status": "finished", "final": {"test_accuracy": 0.5}, "threads": 2}, "abc", {"a": b"1"})
    for change in (
        {"threads": 3},
        {"final": {"test_accuracy": math.nextafter(0.5, 1)}},
        {"more": 1},
        {"integrity": {**sealed["integrity"], "files": {"a": "0"}}},
        {"integrity": {**sealed["integrity"], "schema": 1}},
    ):
        with pytest.raises(WrongContent, match="it was changed after it was stored"):
            check_summary({**sealed, **change}, "abc")


def test_a_number_that_is_not_finite_has_no_digest() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"accuracy": math.nan})


def test_the_hash_of_a_stored_configuration_is_the_run_id(tmp_path: Path) -> None:
    for overrides in (("norm=batch",), ("norm=none", "epochs=0.5", "lr=1e-5"), ("model=vgg", "precision=bf16", "lr=1")):
        spec, store = spec_of(*overrides), Store(tmp_path)
        store.begin(spec.run_id, to_dict(spec))
        assert run_id_of(store.config(spec.run_id)) == spec.run_id


def test_a_half_written_configuration_is_written_again_when_its_run_begins(tmp_path: Path) -> None:
    store, run = Store(tmp_path), Run()
    paths = store.begin(run.run_id, run.spec)
    whole = paths.config.read_text()
    for content in ("", whole[:99], whole.replace("lr: 0.1", "lr: 0.2")):
        paths.config.write_text(content)
        store.begin(run.run_id, run.spec)
        assert paths.config.read_text() == whole


def test_the_first_of_two_workers_that_finish_a_run_stores_its_results(tmp_path: Path) -> None:
    """Both files of one and the summary of the other would not belong together."""
    [run_id] = synthetic.write(tmp_path, [Run(accuracy=0.5)])
    before = {path: path.read_bytes() for path in Store(tmp_path).run(run_id).folder.iterdir()}
    synthetic.write(tmp_path, [Run(accuracy=0.6)])
    assert before == {path: path.read_bytes() for path in Store(tmp_path).run(run_id).folder.iterdir()}


@pytest.mark.parametrize("place", range(3))
def test_a_run_is_intact_whenever_another_worker_finishes_it_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """The two measured other times. The other one acts just before, between and after the tables are written."""
    [run_id] = synthetic.write(tmp_path / "a", [Run()])
    source, store = Store(tmp_path / "a"), Store(tmp_path / "b")
    metrics, timing, summary = source.table(run_id, "metrics"), source.table(run_id, "timing"), source.summary(run_id)
    slower = timing.set_column(1, "seconds", pc.multiply(timing["seconds"], 2.0))
    store.begin(run_id, source.config(run_id))
    write, written = files.write_atomic, []

    def interrupted(path: Path, content: Callable[[Path], object]) -> None:
        written.append(path)
        if len(written) == place + 1:
            store.finish(run_id, metrics, slower, summary)
        write(path, content)

    monkeypatch.setattr(files, "write_atomic", interrupted)
    store.finish(run_id, metrics, timing, summary)
    assert len(written) > 5
    store.check(run_id)


def test_a_table_is_read_from_a_shared_store_after_it_was_checked(tmp_path: Path) -> None:
    [run_id] = synthetic.write(tmp_path, [Run()])
    store = SharedStore(tmp_path, Counter({run_id: 3}))
    for _ in range(2):
        store.check(run_id)
        assert store.table(run_id, "metrics").equals(Store(tmp_path).table(run_id, "metrics"))
    flip = bytearray((path := store.run(run_id).metrics).read_bytes())
    flip[50] ^= 1
    path.write_bytes(flip)
    with pytest.raises(DamagedRun, match="not the file that was stored"):
        store.check(run_id)


def test_a_table_as_bytes_is_the_file_that_pyarrow_writes(tmp_path: Path) -> None:
    [run_id] = synthetic.write(tmp_path, [Run()])
    path = Store(tmp_path).run(run_id).metrics
    pq.write_table(pq.read_table(path), tmp_path / "again.parquet", compression="zstd")
    assert (tmp_path / "again.parquet").read_bytes() == path.read_bytes()
