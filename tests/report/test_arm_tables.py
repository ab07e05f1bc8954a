from __future__ import annotations

import pandas as pd

from bnstudy.claims.frames import StudyData
from bnstudy.report.arm_tables import arm_rows, probe_overhead
from bnstudy.stats.intervals import mean_interval


def probed(**columns: list) -> pd.DataFrame:
    table = pd.DataFrame({"panel": ["MLP on Digits", "MLP on Digits", "VGG on Digits"], "seconds.total": [10.0, 20, 5]})
    return table.assign(**{f"probe_seconds.{name}": seconds for name, seconds in columns.items()})


def test_the_table_has_every_arm_and_marks_the_best_rates(sweep: StudyData) -> None:
    rows = arm_rows(sweep.runs)
    assert [r["arm"] for r in rows if r["chosen"]] == ["NoNorm, lr=0.1", "BatchNorm, lr=0.3"]
    assert len(rows) == 16
    assert sum(r["diverged"] for r in rows) == 12
    naive = mean_interval(sweep.runs.query("arm == 'NoNorm, lr=0.1'")["test_accuracy"])
    row = next(r for r in rows if r["arm"] == "NoNorm, lr=0.1")
    assert row["test"] == f"{100 * naive.mean:.1f}%"
    assert row["interval"] == f"{100 * naive.low:.1f} to {100 * naive.high:.1f}"


def test_overhead_is_a_mean_over_the_runs_with_the_probe() -> None:
    rows = probe_overhead(probed(norms=[1.0, 4.0, None], sharpness=[5.0, None, 0.5]))
    assert [tuple(row.values()) for row in rows] == [
        ("MLP on Digits", "sharpness", 1, "5", "50.0%"),
        ("MLP on Digits", "norms", 2, "2.5", "15.0%"),  # the mean of 10% and 20%
        ("MLP on Digits", "all probes", 2, "5", "40.0%"),  # of 60% and 20%
        ("VGG on Digits", "sharpness", 1, "0.5", "10.0%"),
    ]


def test_runs_without_probes_have_no_overhead() -> None:
    assert probe_overhead(probed()) == probe_overhead(probed(old=[None, None, None])) == []
