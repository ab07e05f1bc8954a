from __future__ import annotations

import pytest
import torch

from bnstudy.rng import stream


def draw(*key):
    return torch.rand(4, generator=stream(*key))


def test_a_stream_is_a_function_of_its_name():
    assert torch.equal(draw(0, "init", "out.weight"), draw(0, "init", "out.weight"))


def test_streams_differ_by_seed_name_and_index():
    drawn = [draw(0, "init", "a"), draw(1, "init", "a"), draw(0, "order", "a"), draw(0, "init", "b")]
    assert len({tuple(d.tolist()) for d in drawn}) == 4


def test_the_numbers_never_change():
    """A release that moved them would call other trainings by the run_ids of stored ones."""
    assert draw(7, "order", 3).tolist() == pytest.approx([0.654408, 0.576633, 0.304377, 0.516326], abs=1e-6)
