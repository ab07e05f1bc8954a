from __future__ import annotations

import logging

import pytest
import torch

from bnstudy.train import checkpoint
from tests.conftest import CPU

STATE = {"step": 3, "params": torch.arange(3.0), "slots": {}, "record": {"rows": [(0, "val", "loss", "")]}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.pt"


def test_a_saved_state_is_loaded(path):
    checkpoint.save(path, "abc", STATE)
    loaded = checkpoint.load(path, "abc", CPU)
    assert loaded["step"] == 3
    assert torch.equal(loaded["params"], STATE["params"])


def test_a_missing_checkpoint_loads_as_none(path):
    assert checkpoint.load(path, "abc", CPU) is None


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\x80\x04garbage"])
def test_a_damaged_checkpoint_is_set_aside_with_a_warning(path, caplog, damage):
    checkpoint.save(path, "abc", STATE)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    with caplog.at_level(logging.WARNING):
        assert checkpoint.load(path, "abc", CPU) is None
    assert "set aside as checkpoint.bad.pt" in caplog.text
    assert path.with_name("checkpoint.bad.pt").read_bytes() == damaged
    assert not path.exists()


def test_a_checkpoint_of_another_run_is_set_aside(path, caplog):
    checkpoint.save(path, "abc", STATE)
    assert checkpoint.load(path, "def", CPU) is None
    assert "it belongs to run abc" in caplog.text


def test_loading_a_checkpoint_executes_no_code_in_it(path, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    torch.save({"run_id": "abc", "state": Bomb()}, path)
    assert checkpoint.load(path, "abc", CPU) is None
    assert not (tmp_path / "exploded").exists()
