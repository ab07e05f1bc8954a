"""The tables beside a page: CSV that a spreadsheet shows and runs nothing of, and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pandas as pd

from bnstudy.claims import verdicts
from bnstudy.claims.verdicts import Verdict
from bnstudy.validation import printable

VERDICT_COLUMNS = {
    "claim": "claim", "statement": "statement", "study": "study", "model": "network", "data": "data",
    "setting": "setting", "view": "view", "primary": "primary", "status": "verdict", "effect_is": "effect_is",
    "effect": "effect", "ci_low": "low", "ci_high": "high", "unit": "unit", "opposite": "opposite", "scale": "scale",
    "threshold": "smallest_effect", "n_seeds": "seeds", "d_z": "d_z", "p": "p", "p_holm": "p_holm",
    "survives_holm": "survives_holm", "because": "because",
}  # fmt: skip
"""Of `verdicts.csv`, by the key in `claims.json`."""


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


def verdict_files(found: Sequence[Verdict]) -> dict[str, str]:
    """`claims.json`, the verdicts in full, and `verdicts.csv`, a row for each."""
    entries = verdicts.as_json(found)
    return {"claims.json": as_json(entries), "verdicts.csv": verdict_table(entries)}


def verdict_table(entries: Iterable[Mapping[str, Any]]) -> str:
    """A row for each verdict of `claims.json`: a claim in a case and a view. Numbers have 6 significant digits."""
    rows = [{name: _as_number(entry[key]) for key, name in VERDICT_COLUMNS.items()} for entry in entries]
    table = pd.DataFrame(rows, columns=[*VERDICT_COLUMNS.values()], dtype=object)
    return table.map(as_cell).to_csv(index=False, lineterminator="\n")


def round_numbers(found: Sequence[Verdict]) -> list[dict[str, Any]]:
    """The entries of `claims.json` with 10 significant digits: processors differ in the last ones of 16."""
    return [_rounded(entry) for entry in verdicts.as_json(found)]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.10g}")
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value


def _as_number(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def as_json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"
