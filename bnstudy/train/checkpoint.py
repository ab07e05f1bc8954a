"""Checkpoints: one file of tensors and plain data, written whole, read without running anything in it."""

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
    """The state saved for the run, or None where there is none.

    A file that is damaged, or that belongs to another run, is renamed to `checkpoint.bad.pt`, which is said in a
    warning: the run then starts again.

    Raises:
        OSError, MemoryError: it cannot be read now, which says nothing of the file.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        owner, state = saved["run_id"], saved["state"]
    except FileNotFoundError:
        return None
    except (OSError, MemoryError):
        raise
    except Exception:  # a damaged archive fails in many ways, none of which may stop the run
        set_aside(path, "it cannot be read")
        return None
    if owner != run_id:
        set_aside(path, f"it belongs to run {owner}")
        return None
    return on_device(state, device)


def on_device(state: Any, device: torch.device) -> Any:
    """Nested mappings with their tensors on the device."""
    if isinstance(state, dict):
        return {key: on_device(value, device) for key, value in state.items()}
    return state.to(device) if isinstance(state, Tensor) else state


def set_aside(path: Path, reason: str) -> None:
    bad = path.with_name("checkpoint.bad.pt")
    path.replace(bad)
    log.warning("The checkpoint %s cannot be used (%s): set aside as %s, the run starts again.", path, reason, bad.name)
