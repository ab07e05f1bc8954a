from __future__ import annotations

import logging
import os
import random

import pytest
import torch

from bnstudy.train import checkpoint
from tests.conftest import CPU

STATE = {"step": 3, "params": torch.arange(300.0), "slots": {}, "record": {"rows": [(0, "val", "loss", "")]}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.pt"


def saved(path) -> bytes:
    checkpoint.save(path, "abc", "00", STATE)
    return path.read_bytes()


def test_a_saved_state_is_loaded(path):
    saved(path)
    loaded = checkpoint.load(path, "abc", "00", CPU)
    assert loaded["step"] == 3
    assert torch.equal(loaded["params"], STATE["params"])


def test_a_missing_checkpoint_loads_as_none(path):
    assert checkpoint.load(path, "abc", "00", CPU) is None


def test_a_checkpoint_of_an_earlier_version_is_loaded(path):
    torch.save({"run_id": "abc", "state": STATE}, path)
    assert torch.equal(checkpoint.load(path, "abc", "00", CPU)["params"], STATE["params"])


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b"\x80\x04garbage", lambda b: b"PK\x03\x04" + b[4:]])
def test_a_damaged_checkpoint_is_set_aside_with_a_warning(path, caplog, damage):
    damaged = damage(saved(path))
    path.write_bytes(damaged)
    with caplog.at_level(logging.WARNING):
        assert checkpoint.load(path, "abc", "00", CPU) is None
    assert "set aside as checkpoint.bad.pt" in caplog.text
    assert path.with_name("checkpoint.bad.pt").read_bytes() == damaged
    assert not path.exists()


def is_noticed(path, content: bytes) -> bool:
    path.write_bytes(content)
    return checkpoint.load(path, "abc", "00", CPU) is None


def test_every_flipped_bit_is_noticed(path):
    whole, rng = saved(path), random.Random(0)
    header = range(8 * len(checkpoint.HEADER) + 256)
    for place in [*header, *rng.sample(range(8 * len(whole)), 200)]:
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        assert is_noticed(path, bytes(flipped)), f"bit {place}"
    assert not is_noticed(path, whole)


def test_a_checkpoint_that_is_cut_off_anywhere_is_noticed(path):
    whole = saved(path)
    for length in range(0, len(whole), 7):
        assert is_noticed(path, whole[:length]), length
    assert is_noticed(path, whole + b"\0")


def test_a_checkpoint_of_an_earlier_version_that_is_cut_off_anywhere_is_noticed(path):
    torch.save({"run_id": "abc", "state": STATE}, path)
    whole = path.read_bytes()
    assert all(is_noticed(path, whole[:length]) for length in range(0, len(whole), 41))


@pytest.mark.parametrize(
    ("run_id", "checksum", "why"),
    [("def", "00", "it belongs to run abc"), ("abc", "01", "the images of the dataset have changed since")],
)
def test_a_checkpoint_of_another_run_or_other_images_is_set_aside(path, caplog, run_id, checksum, why):
    saved(path)
    assert checkpoint.load(path, run_id, checksum, CPU) is None
    assert why in caplog.text


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("gone")]
)
def test_what_is_no_file_is_set_aside(path, caplog, make):
    make(path)
    path.with_name("checkpoint.bad.pt").symlink_to("gone")
    assert checkpoint.load(path, "abc", "00", CPU) is None
    assert "it is not a file): set aside as checkpoint.bad-2.pt" in caplog.text
    assert [*path.parent.glob("checkpoint.pt")] == []


@pytest.mark.parametrize("state", [{}, {"step": "3"}, {"step": -1}, {"step": True}, [3], None])
def test_a_checkpoint_without_its_step_is_set_aside(path, caplog, state):
    checkpoint.save(path, "abc", "00", state)
    assert checkpoint.load(path, "abc", "00", CPU) is None
    assert "it is damaged): set aside" in caplog.text


def test_no_checkpoint_that_was_set_aside_is_overwritten(path):
    for i in range(3):
        path.write_bytes(b"damaged %d" % i)
        assert checkpoint.load(path, "abc", "00", CPU) is None
    kept = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    names = ["checkpoint.bad.pt", "checkpoint.bad-2.pt", "checkpoint.bad-3.pt"]
    assert kept == {name: b"damaged %d" % i for i, name in enumerate(names)}


def test_loading_a_checkpoint_executes_no_code_in_it(path, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    for save in (checkpoint.save, lambda path, run_id, _, state: torch.save({"run_id": run_id, "state": state}, path)):
        save(path, "abc", "00", Bomb())
        assert checkpoint.load(path, "abc", "00", CPU) is None
    assert not (tmp_path / "exploded").exists()
