"""The time that probes take, from the summaries of the runs."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

PREFIX = "probe_seconds."
TOTAL = "all probes"


@dataclass(frozen=True)
class OverheadRow:
    """A row of the table: means over the runs of a panel with the probe. share: of the whole time of a run."""

    panel: str
    probe: str
    runs: int
    seconds: str
    share: str


def probe_overhead(runs: pd.DataFrame) -> list[OverheadRow]:
    """A row for each panel and probe, the slowest first, and a row for all probes together if there are several."""
    return [row for panel, group in runs.groupby("panel", observed=True) for row in _panel_rows(str(panel), group)]


def _panel_rows(panel: str, runs: pd.DataFrame) -> list[OverheadRow]:
    columns = sorted(c for c in runs.columns if c.startswith(PREFIX))
    seconds = runs[columns].astype(float).rename(columns=lambda c: c.removeprefix(PREFIX)).dropna(axis=1, how="all")
    slowest_first = seconds.mean().sort_values(ascending=False, kind="stable").index
    by_probe = {str(probe): seconds[probe] for probe in slowest_first}
    if len(by_probe) > 1:
        by_probe[TOTAL] = seconds.sum(axis=1, min_count=1)
    total = runs["seconds.total"].astype(float)
    return [
        OverheadRow(panel, probe, int(s.count()), f"{s.mean():.3g}", f"{100 * (s / total).mean():.1f}%")
        for probe, s in by_probe.items()
    ]
