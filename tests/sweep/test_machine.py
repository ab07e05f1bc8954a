from __future__ import annotations

import pytest
import torch

from bnstudy.sweep.machine import resolve_device, set_up_torch
from bnstudy.sweep.settings import Settings
from bnstudy.validation import ConfigError


def test_a_device_that_is_not_there_is_refused():
    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ConfigError, match=f"device={missing} is not allowed"):
        resolve_device(Settings(device=missing))


def test_the_number_of_threads_is_torchs_unless_it_is_given():
    before = torch.get_num_threads()
    try:
        set_up_torch(Settings(), torch.device("cpu"))
        assert torch.get_num_threads() == before
        set_up_torch(Settings(threads=before + 1), torch.device("cpu"))
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
