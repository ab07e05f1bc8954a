from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bnstudy.store.loading import load_runs
from bnstudy.store.outcomes import accuracy_of_guessing, describe_status, with_present_outcome
from bnstudy.store.runs import Store
from tests import synthetic
from tests.synthetic import Run

FORMER: dict[str, Any] = {
    "status": "finished", "steps": 100, "diverged_step": None, "diverged_because": None, "dataset": {"classes": 4},
}  # fmt: skip
LOST = FORMER | {"status": "diverged", "diverged_because": "why"}


@pytest.mark.parametrize(
    ("summary", "status", "learned", "step"),
    [
        (FORMER, "finished", True, None),
        (LOST | {"diverged_step": 7}, "diverged", None, 7),
        (LOST | {"diverged_step": 100}, "did not learn", False, None),
    ],
)
def test_a_summary_of_an_earlier_version_has_the_present_outcome(summary, status, learned, step):
    found = with_present_outcome(summary)
    assert (describe_status(found), found["learned"], found["diverged_step"]) == (status, learned, step)
    assert found["dataset"] == {"classes": 4, "guessing": {"val": 0.25, "test": 0.25, "loss": None}}
    assert with_present_outcome(found) == found


def test_a_regression_of_an_earlier_version_has_no_accuracy_of_guessing():
    found = with_present_outcome(FORMER | {"dataset": {"classes": None}})
    assert accuracy_of_guessing(found, "test") is None


def test_a_present_summary_stays_as_it_is(tmp_path: Path):
    """At its last step a run of this version may diverge."""
    present = LOST | {"learned": None, "diverged_step": 100}
    assert with_present_outcome(present) == present
    (run_id,) = synthetic.write(tmp_path, [Run()])
    dataset = Store(tmp_path).summary(run_id)["dataset"]
    guessing = {"val": 0.8, "test": 0.75, "loss": 0.5}
    synthetic.edit_summary(tmp_path, run_id, learned=False, dataset={**dataset, "guessing": guessing})
    run = load_runs(tmp_path).iloc[0]
    assert (run["learned"], run["dataset.guessing.val"], run["dataset.guessing.loss"]) == (False, 0.8, 0.5)
