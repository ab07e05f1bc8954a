"""What probes cost, from the summaries of the runs."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

PREFIX = "probe_seconds."
TOTAL = "all probes"


@dataclass(frozen=True)
class CostRow:
    """A probe on the runs of a panel that had it, as the table shows it: means over runs, the share one of the whole
    time of a run."""

    panel: str
    probe: str
    runs: int
    seconds: str
    share: str


def probe_costs(runs: pd.DataFrame) -> list[CostRow]:
    """A row a panel and probe, the dearest first, and one for all together where there are several."""
    return [row for panel, of_panel in runs.groupby("panel", observed=True) for row in _of_panel(str(panel), of_panel)]


def _of_panel(panel: str, runs: pd.DataFrame) -> list[CostRow]:
    seconds = probe_seconds(runs)
    means = seconds.mean().sort_values(ascending=False, kind="stable")
    probes = [_row(panel, str(name), seconds[name].dropna(), runs) for name in means.index]
    every = seconds.sum(axis=1)[seconds.notna().any(axis=1)]
    return [*probes, _row(panel, TOTAL, every, runs)] if len(probes) > 1 else probes


def probe_seconds(runs: pd.DataFrame) -> pd.DataFrame:
    """A column a probe, in the order of their names, missing where a run did not have it."""
    columns = sorted(c for c in runs.columns if c.startswith(PREFIX))
    return runs[columns].astype(float).rename(columns=lambda c: c.removeprefix(PREFIX)).dropna(axis=1, how="all")


def _row(panel: str, probe: str, seconds: pd.Series, runs: pd.DataFrame) -> CostRow:
    share = (seconds / runs.loc[seconds.index, "seconds.total"].astype(float)).mean()
    return CostRow(panel, probe, len(seconds), f"{seconds.mean():.3g}", f"{100 * share:.1f}%")
