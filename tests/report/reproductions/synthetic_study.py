"""A study with made-up runs and metrics, and the checks that its reproduction makes of them."""

from __future__ import annotations

import pandas as pd

from bnstudy.claims.frames import StudyData
from bnstudy.report.reproductions import ReproductionResult, reproduce


def study(name: str, runs: list[dict], metrics: list[tuple]) -> StudyData:
    """Only the data that reproductions read; `metrics` are run_id, step, split, metric, layer, value."""
    frame = pd.DataFrame(
        [{"run_id": f"r{i}", "seed": i, "steps": 100, "diverged": False, **run} for i, run in enumerate(runs)]
    )
    columns = ["run_id", "step", "split", "metric", "layer", "value"]
    finished = frame[frame.get("finished", pd.Series(True, frame.index)).fillna(True).astype(bool)]
    return StudyData(
        name, "?", "quick", (), (), (), frame, finished, pd.DataFrame(metrics, columns=columns), pd.DataFrame(), {}
    )


def reproduction(data: StudyData) -> ReproductionResult:
    result = reproduce(data)
    assert result is not None
    return result


def results_by_arm(data: StudyData) -> dict[str, str]:
    return {check.arm: check.result for check in reproduction(data).checks}
