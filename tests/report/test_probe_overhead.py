from __future__ import annotations

import pandas as pd

from bnstudy.report.probe_overhead import OverheadRow, probe_overhead


def runs(**columns: list) -> pd.DataFrame:
    table = pd.DataFrame({"panel": ["MLP on Digits", "MLP on Digits", "VGG on Digits"], "seconds.total": [10.0, 20, 5]})
    return table.assign(**{f"probe_seconds.{name}": seconds for name, seconds in columns.items()})


def test_overhead_is_a_mean_over_the_runs_with_the_probe() -> None:
    rows = probe_overhead(runs(norms=[1.0, 4.0, None], sharpness=[5.0, None, 0.5]))
    assert rows == [
        OverheadRow("MLP on Digits", "sharpness", 1, "5", "50.0%"),
        OverheadRow("MLP on Digits", "norms", 2, "2.5", "15.0%"),  # the mean of 10% and 20%
        OverheadRow("MLP on Digits", "all probes", 2, "5", "40.0%"),  # of 60% and 20%
        OverheadRow("VGG on Digits", "sharpness", 1, "0.5", "10.0%"),
    ]


def test_runs_without_probes_have_no_overhead() -> None:
    assert probe_overhead(runs()) == []
    assert probe_overhead(runs(old=[None, None, None])) == []
