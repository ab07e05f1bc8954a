from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from bnstudy.store.packing import pack
from bnstudy.store.plans import Plans
from bnstudy.store.runs import Store
from bnstudy.validation import ConfigError
from scripts import results
from scripts.published import record, training
from scripts.published.images import find_cifar10, unpack
from scripts.published.parts import Part
from scripts.published.provenance import provenance
from scripts.published.record import Record
from scripts.published.training import take_back_earlier_plans, train_parts, wait_for
from tests import synthetic

PARTS = (Part("one", ("convergence",)), Part("two", ("cost", "affine")))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "images" / "MNIST" / "raw").mkdir(parents=True)
    return tmp_path / "images"


def test_a_finished_part_is_not_started_again_and_times_add_up(data, tmp_path, monkeypatch, capsys) -> None:
    started, statuses = list[str](), iter([0, 130, 0])
    monkeypatch.setattr(training, "wait_for", lambda words: started.append(words[3]) or next(statuses))
    monkeypatch.setattr(training.time, "monotonic", iter(range(0, 100, 5)).__next__)
    with pytest.raises(SystemExit) as stopped:
        train_parts(PARTS, data, tmp_path)
    assert stopped.value.code == 130
    train_parts(PARTS, data, tmp_path)
    assert len(started) == 3
    assert {name: (part.done, part.seconds, part.started) for name, part in Record(tmp_path).parts.items()} == {
        "one": (True, 5, 1), "two": (True, 10, 2),
    }  # fmt: skip
    assert "Part 1 of 2, one: finished before, in 5 s." in capsys.readouterr().out


def test_a_part_with_failed_runs_is_started_again(data, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(training, "wait_for", lambda words: 1)
    train_parts(PARTS, data, tmp_path)
    assert [part.done for part in Record(tmp_path).parts.values()] == [False, False]


def test_a_part_that_was_finished_with_other_settings_is_started_again(data, tmp_path, monkeypatch) -> None:
    started = list[list[str]]()
    monkeypatch.setattr(training, "wait_for", lambda words: started.append(words[3:]) or 0)
    train_parts(PARTS[:1], data, tmp_path, ["seed=0,1"])
    train_parts(PARTS[:1], data, tmp_path)
    train_parts(PARTS[:1], data, tmp_path)
    assert [words[-1] == "seed=0,1" for words in started] == [True, False]
    conf = shutil.copytree(record.conf_dir(), tmp_path / "conf")
    monkeypatch.setattr(record, "conf_dir", lambda: conf)
    monkeypatch.setattr(record, "ROOT", tmp_path)
    train_parts(PARTS[:1], data, tmp_path)
    assert len(started) == 2
    study = conf / "study" / "convergence.yaml"
    study.write_text(study.read_text() + "# more\n")
    train_parts(PARTS[:1], data, tmp_path)
    assert len(started) == 3


def test_a_trial_is_trained_elsewhere_and_not_published(data, monkeypatch) -> None:
    calls = list[tuple[object, ...]]()
    monkeypatch.setattr(results, "train_parts", lambda parts, data, work, overrides: calls.append((work, overrides)))
    monkeypatch.setattr(results, "publish", lambda work: calls.append((work,)))
    for words in ([], ["--only-train"], ["--override", "seed=0,1"]):
        monkeypatch.setattr("sys.argv", ["results.py", "make", str(data), *words])
        assert results.main() == 0
    assert calls == [
        (results.WORK, []), (results.WORK,), (results.WORK, []), (results.TRIAL, ["seed=0,1"]),
    ]  # fmt: skip


def test_remarks_on_a_part_are_in_the_provenance(tmp_path) -> None:
    record_of_work = Record(tmp_path)
    record_of_work.of("one").remark = "Trained together with two."
    text = provenance(record_of_work, ["pack"])
    assert "\n- one: Trained together with two.\n" in text
    assert "\n- two:" not in text


def test_a_study_keeps_the_plan_of_its_last_command(tmp_path, capsys) -> None:
    plans, old, new = Plans(tmp_path), "0" * 12, "1" * 12
    for i, (command, run_id) in enumerate((("bnstudy study=s seed=1", old), ("bnstudy study=s", new))):
        plans.add({"name": "s", "title": "S"}, "standard", command, [run_id])
        os.utime(next(p for p in tmp_path.rglob("*.json") if run_id in p.read_text()), (i, i))
    take_back_earlier_plans(tmp_path)
    assert [plan["run_ids"] for plan in plans.load("s")] == [[new]]
    assert capsys.readouterr().out == "Taken back, since s was planned anew: bnstudy study=s seed=1\n"


def test_only_planned_studies_of_the_parts_are_published(tmp_path, capsys) -> None:
    store = tmp_path / "standard"
    with pytest.raises(ConfigError, match="Nothing is trained in"):
        results.planned_studies(store)
    for name in ("cost", "affine", "own_network"):
        Plans(store).add({"name": name, "title": ""}, "standard", f"bnstudy study={name}", ["0" * 12])
    assert results.planned_studies(store) == ["affine", "cost"]
    assert "Not trained, and not published: alternatives, " in capsys.readouterr().out


def test_data_without_mnist_are_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="it has no folder MNIST/raw"):
        train_parts(PARTS, tmp_path, tmp_path)


def test_commands_name_links_to_the_images_of_this_machine(data, tmp_path, monkeypatch) -> None:
    lines = list[list[str]]()
    monkeypatch.setattr(training, "wait_for", lambda words: lines.append(words) or 0)
    train_parts(PARTS, data, tmp_path / "work")
    train_parts([Part("three", ("affine",))], tmp_path / "work" / "data", tmp_path / "work")
    assert (tmp_path / "work" / "data").resolve() == data.resolve()
    assert all(f"data.root={tmp_path / 'work' / 'data'}" in words for words in lines)


def test_an_exit_status_is_that_of_the_command() -> None:
    assert [wait_for(["sh", "-c", f"exit {status}"]) for status in (0, 3)] == [0, 3]


def test_the_check_names_files_that_do_not_belong_there_or_are_missing(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(results, "PUBLISHED", tmp_path)
    monkeypatch.setattr(results, "draw", lambda: {tmp_path / "report.md": b"text"})
    for name in ("packed.json", "runs.parquet", "report.md", "digits/claims.json", "parts.json", "reports/mine.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    assert results.check() == 0
    (tmp_path / ".metrics.parquet.0").write_text("left")
    (tmp_path / "report.md").unlink()
    capsys.readouterr()
    assert results.check() == 1
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{tmp_path / 'report.md'} is missing.")
    assert second == f"{tmp_path / '.metrics.parquet.0'} is not one of the published files: delete it."


def test_what_is_published_is_where_training_goes_on(data, tmp_path, monkeypatch, capsys) -> None:
    published, work, store = tmp_path / "published", tmp_path / "work", tmp_path / "store"
    ids = synthetic.write(store, [synthetic.Run()])
    synthetic.plan(store, "convergence", ids)
    pack(Store(store), ids, Plans(store).files("convergence", "quick"), published, True, lambda _: None)
    monkeypatch.setattr(training, "wait_for", lambda words: 0)
    train_parts(PARTS[:1], data, published)
    results.restore(published, work)
    assert Store(work / "standard").finished() == ids
    assert Plans(work / "standard").studies() == ["convergence"]
    with pytest.raises(ConfigError, match="has runs already"):
        results.restore(published, work)
    (without := shutil.copytree(published, tmp_path / "without") / "parts.json").unlink()
    with pytest.raises(ConfigError, match=r"without has no parts\.json"):
        results.restore(without.parent, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    monkeypatch.setattr(training, "settings_of", lambda commands: Record(published).of("one").settings)
    capsys.readouterr()
    train_parts(PARTS[:1], data, work)
    assert capsys.readouterr().out == "Part 1 of 1, one: finished before, in 0 s.\n"


def tar_of(folder: Path, name: str = "cifar10-jpeg/train/cat/0000.jpg") -> tuple[Path, str]:
    archive = folder / "cifar10-jpeg.tar"
    with tarfile.open(archive, "w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"abc"))
    return archive, hashlib.sha256(archive.read_bytes()).hexdigest()


def test_an_archive_is_unpacked_once(tmp_path) -> None:
    archive, digest = tar_of(tmp_path)
    folder = unpack(archive, tmp_path / "cache", digest)
    assert (folder / "train" / "cat" / "0000.jpg").read_bytes() == b"abc"
    archive.unlink()
    assert unpack(archive, tmp_path / "cache", digest) == folder


def test_another_archive_is_refused(tmp_path) -> None:
    archive, _ = tar_of(tmp_path)
    with pytest.raises(ConfigError, match="damaged or another file"):
        unpack(archive, tmp_path / "cache")


def test_an_archive_writes_nothing_outside_of_its_folder(tmp_path) -> None:
    archive, digest = tar_of(tmp_path, "../outside.jpg")
    with pytest.raises(tarfile.FilterError):
        unpack(archive, tmp_path / "cache", digest)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["cifar10-jpeg.tar"]


def test_a_folder_of_images_needs_no_archive(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"neither cifar10-jpeg/ nor cifar10-jpeg\.tar"):
        find_cifar10(tmp_path)
    (tmp_path / "cifar10-jpeg").mkdir()
    assert find_cifar10(tmp_path) == tmp_path / "cifar10-jpeg"
