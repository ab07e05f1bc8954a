from __future__ import annotations

import platform
import subprocess
import sys

import pytest

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's allocator")
def test_memory_that_a_step_frees_is_kept_for_the_next():
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    first, second = map(int, done.stdout.split())
    assert second < first / 10
