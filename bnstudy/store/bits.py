"""Boolean arrays as text, for `summary.json`."""

from __future__ import annotations

import base64

import numpy as np


def pack_bits(values: np.ndarray) -> str:
    """Encode bool [n] as base64: 8 values a byte, the first in the highest bit."""
    return base64.b64encode(np.packbits(values).tobytes()).decode()


def unpack_bits(text: str, n: int) -> np.ndarray:
    """Decode a text of `pack_bits` to bool [n]. Raises ValueError if it does not hold n values."""
    packed = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    if len(packed) != -(-n // 8):
        raise ValueError(f"{len(packed)} bytes do not hold {n} values")
    return np.unpackbits(packed, count=n).astype(bool)
