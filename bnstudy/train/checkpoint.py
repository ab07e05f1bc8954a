"""Checkpoints: files of tensors and plain data, written atomically; loading executes no code in them.

A file is HEADER, the SHA-256 of the rest, and what `torch.save` wrote. In an earlier version it was the last alone.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bnstudy.store.files import is_plain_file, write_atomic

log = logging.getLogger(__name__)

HEADER = b"bnstudy checkpoint 1\n"
EARLIER_HEADER = b"PK\x03\x04"
"""Of a zip archive."""


def save(path: Path, run_id: str, checksum: str, state: dict[str, Any]) -> None:
    """checksum: of the dataset on which the run is trained."""
    buffer = io.BytesIO()
    torch.save({"run_id": run_id, "checksum": checksum, "state": state}, buffer)
    content = buffer.getbuffer()

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.writelines([HEADER, hashlib.sha256(content).digest(), content])

    write_atomic(path, write)


def load(path: Path, run_id: str, checksum: str, device: torch.device) -> dict[str, Any] | None:
    """Load the state saved for the run; None if there is no checkpoint.

    A file that is damaged, of another run or of a dataset with another checksum is set aside; the run then starts
    again. A checkpoint of an earlier version has no checksum.

    Raises:
        OSError, MemoryError: the file cannot be read now; it may still be intact.
    """
    if not is_plain_file(path):
        if os.path.lexists(path):
            set_aside(path, "it is not a file")
        return None
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        saved = torch.load(io.BytesIO(_verify(content)), map_location="cpu", weights_only=True)
        owner, trained_on, state = saved["run_id"], saved.get("checksum", checksum), saved["state"]
        if type(state["step"]) is not int or state["step"] < 0:
            raise ValueError("no step")
    except MemoryError:
        raise
    except Exception:  # a damaged archive fails in many ways; none may stop the run
        set_aside(path, "it is damaged")
        return None
    if owner != run_id:
        set_aside(path, f"it belongs to run {owner}")
        return None
    if trained_on != checksum:
        set_aside(path, "the images of the dataset have changed since")
        return None
    return on_device(state, device)


def _verify(content: bytes) -> bytes:
    """What `torch.save` wrote. Raises ValueError if it has changed since."""
    if content.startswith(EARLIER_HEADER):
        return content
    start = len(HEADER) + hashlib.sha256().digest_size
    digest, saved = content[len(HEADER) : start], content[start:]
    if not content.startswith(HEADER) or hashlib.sha256(saved).digest() != digest:
        raise ValueError("the checkpoint is damaged")
    return saved


def on_device(state: Any, device: torch.device) -> Any:
    """Move the tensors in nested mappings to the device."""
    if isinstance(state, dict):
        return {key: on_device(value, device) for key, value in state.items()}
    return state.to(device) if isinstance(state, Tensor) else state


def set_aside(path: Path, reason: str) -> None:
    """Rename the checkpoint to `checkpoint.bad.pt`, or `checkpoint.bad-2.pt` if that is taken, with a warning."""
    names = (f"checkpoint.bad{f'-{i}' if i > 1 else ''}.pt" for i in count(1))
    bad = next(free for name in names if not os.path.lexists(free := path.with_name(name)))
    path.replace(bad)
    log.warning("The checkpoint %s cannot be used (%s): set aside as %s, the run starts again.", path, reason, bad.name)
