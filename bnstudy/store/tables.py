"""The schemas of the tables in a store: apart, as commands that read none do without pyarrow."""

from __future__ import annotations

import pyarrow as pa

_TEXT = pa.dictionary(pa.int32(), pa.string())
METRICS_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("epoch", pa.float64()),
        ("split", _TEXT),
        ("metric", _TEXT),
        ("layer", _TEXT),
        ("value", pa.float64()),
    ]
)
TIMING_SCHEMA = pa.schema([("step", pa.int64()), ("seconds", pa.float64()), ("step_seconds", pa.float64())])
