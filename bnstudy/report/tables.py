"""The tables beside a page: CSV that a spreadsheet shows and runs nothing of, and JSON."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import pandas as pd

from bnstudy.validation import printable


def as_csv(runs: pd.DataFrame) -> str:
    columns = ["run_id", *sorted(c for c in runs.columns if c != "run_id")]
    table = runs[columns].rename(columns=as_cell)
    texts = [c for c in table if table[c].dtype.kind == "O"]
    table[texts] = table[texts].astype(object).map(as_cell)
    return table.to_csv(index=False, lineterminator="\n")


def as_cell(value: Any) -> Any:
    """A value as a cell that a spreadsheet shows: a text that it would run as a formula begins with an apostrophe."""
    if not isinstance(value, str):
        return value
    text = printable(value, keep="")
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) and not is_number(text) else text


def is_number(text: str) -> bool:
    with suppress(ValueError):
        return math.isfinite(float(text))
    return False


def as_json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"
