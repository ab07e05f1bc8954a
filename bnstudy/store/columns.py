"""Columns of tables. `pyarrow.array` makes them too, but imports pandas, which takes a worker a quarter of a second."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def numbers(values: Sequence[float] | np.ndarray, kind: type[np.generic]) -> pa.Array:
    array = np.ascontiguousarray(values, kind)
    return pa.Array.from_buffers(pa.from_numpy_dtype(array.dtype), len(array), [None, pa.py_buffer(array)])


def texts(values: Sequence[str]) -> pa.DictionaryArray:
    """Texts as indices of the distinct ones, in order of their first appearance."""
    places: dict[str, int] = {}
    indices = [places.setdefault(value, len(places)) for value in values]
    encoded = [text.encode() for text in places]
    ends = np.cumsum([0, *map(len, encoded)]).astype(np.int32)
    distinct = pa.StringArray.from_buffers(len(places), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))
    return pa.DictionaryArray.from_arrays(numbers(indices, np.int32), distinct)
