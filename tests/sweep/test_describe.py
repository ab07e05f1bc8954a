from __future__ import annotations

import pytest

from bnstudy.sweep.cost import Method
from bnstudy.sweep.describe import describe_plan
from bnstudy.sweep.plan import Plan, Stack
from bnstudy.sweep.request import PlannedRun
from bnstudy.sweep.settings import Settings
from tests.conftest import spec_of


@pytest.mark.parametrize(("runs", "workers", "how"), [(3, 1, "1 process"), (1, 8, "1 process"), (3, 2, "2 processes")])
def test_the_number_of_processes_is_that_of_workers_with_something_to_do(tmp_path, runs, workers, how):
    planned = tuple(PlannedRun(spec_of(f"seed={seed}"), f"seed={seed}", "") for seed in range(runs))
    settings = Settings(results_dir=str(tmp_path))
    stacks = [Stack((run,), Method("serial", 1, compiled=False, norms_vary=False), 20) for run in planned]
    plan = Plan(settings, planned, planned)
    [line] = describe_plan(plan, stacks, "cpu", "processes", workers)
    assert line.endswith(f"one by one, on cpu, in {how}.")
