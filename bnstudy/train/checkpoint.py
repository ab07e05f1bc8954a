"""Checkpoints: files of tensors and plain data, written atomically; loading executes no code in them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bnstudy.store.files import write_atomic

log = logging.getLogger(__name__)


def save(path: Path, run_id: str, state: dict[str, Any]) -> None:
    write_atomic(path, lambda temporary: torch.save({"run_id": run_id, "state": state}, temporary))


def load(path: Path, run_id: str, device: torch.device) -> dict[str, Any] | None:
    """Load the state saved for the run; None if there is no checkpoint.

    A damaged file, or one of another run, is renamed to `checkpoint.bad.pt` with a warning; the run then starts again.

    Raises:
        OSError, MemoryError: the file cannot be read now; it may still be intact.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        owner, state = saved["run_id"], saved["state"]
    except FileNotFoundError:
        return None
    except (OSError, MemoryError):
        raise
    except Exception:  # a damaged archive fails in many ways; none may stop the run
        set_aside(path, "it cannot be read")
        return None
    if owner != run_id:
        set_aside(path, f"it belongs to run {owner}")
        return None
    return on_device(state, device)


def on_device(state: Any, device: torch.device) -> Any:
    """Move the tensors in nested mappings to the device."""
    if isinstance(state, dict):
        return {key: on_device(value, device) for key, value in state.items()}
    return state.to(device) if isinstance(state, Tensor) else state


def set_aside(path: Path, reason: str) -> None:
    bad = path.with_name("checkpoint.bad.pt")
    path.replace(bad)
    log.warning("The checkpoint %s cannot be used (%s): set aside as %s, the run starts again.", path, reason, bad.name)
