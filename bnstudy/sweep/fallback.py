"""What to do with a stack that failed: train it by another method, or give it up."""

from __future__ import annotations

from dataclasses import replace

import torch

from bnstudy.sweep.plan import Stack
from bnstudy.sweep.settings import Settings
from bnstudy.sweep.stackable import one_line
from bnstudy.train.program import NotRecorded


def next_method(stack: Stack, failure: Exception, settings: Settings) -> tuple[Stack, str] | None:
    """The stack with the method to try next, and a message; None if there is no other method."""
    method, count = stack.method, len(stack.runs)
    if method.engine == "serial":
        return None
    if is_out_of_memory(failure) and count > 1:
        halves = replace(method, rows=-(-count // 2))
        return replace(stack, method=halves), f"{count} runs do not fit into memory at once: going on in halves."
    if isinstance(failure, NotRecorded) and settings.compile == "auto":
        message = f"{stack.title} cannot be compiled ({failure}): going on without."
        return replace(stack, method=replace(method, compiled=False)), message
    if settings.engine == "stacked" and count == 1:
        return None
    if settings.engine == "stacked":
        alone = replace(method, rows=1)
    else:
        alone = replace(method, engine="serial", rows=1, compiled=False, reason=one_line(failure))
    return replace(stack, method=alone), f"{stack.title} cannot be stacked ({one_line(failure)}): going on one by one."


def is_out_of_memory(failure: Exception) -> bool:
    # A CPU allocation that fails raises a RuntimeError.
    kinds = isinstance(failure, MemoryError | torch.OutOfMemoryError)
    return kinds or "DefaultCPUAllocator" in str(failure) or "not enough memory" in str(failure)
