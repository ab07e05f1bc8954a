from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from bnstudy.sweep.machine import resolve_device, set_up_torch
from bnstudy.sweep.settings import Settings
from bnstudy.sweep.threads import keep_settings
from bnstudy.validation import ConfigError

FREED = """
import resource
import torch
from bnstudy.sweep.machine import keep_freed_memory

def pages() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [torch.zeros(2**18) for _ in range(100)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
print(pages(), pages())
"""


def test_a_device_that_is_not_there_is_refused():
    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ConfigError, match=f"device={missing} is not allowed"):
        resolve_device(Settings(device=missing))


def test_the_number_of_threads_is_torchs_unless_it_is_given():
    with keep_settings():
        before = torch.get_num_threads()
        set_up_torch(Settings(), torch.device("cpu"))
        assert torch.get_num_threads() == before
        set_up_torch(Settings(threads=before + 1), torch.device("cpu"))
        assert torch.get_num_threads() == before + 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's allocator")
def test_memory_that_a_step_frees_is_kept_for_the_next():
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    first, second = map(int, done.stdout.split())
    assert second < first / 10
