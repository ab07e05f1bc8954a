"""What summaries say of how runs ended, in the present form also for those that earlier versions wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FORMER_REASON = "training loss above 10 times the initial"
"""Why earlier versions stopped runs, at a single such loss: some of them would have recovered."""


def with_present_outcome(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The summary with the keys that earlier versions lack.

    `learned`: they called a run that ended near guessing diverged at its last step. `dataset.guessing`: they took
    1 / classes for the accuracy of guessing, and recorded no loss of it.
    """
    if "learned" in summary:
        return dict(summary)
    dataset, diverged = summary.get("dataset", {}), summary["status"] == "diverged"
    classes, step = dataset.get("classes"), summary.get("diverged_step")
    guessing = {**dict.fromkeys(("val", "test"), 1 / classes if classes else None), "loss": None}
    present = {**summary, "learned": None if diverged else True, "dataset": {**dataset, "guessing": guessing}}
    if diverged and step is not None and step >= summary["steps"]:
        present |= {"status": "finished", "learned": False, "diverged_step": None, "diverged_because": None}
    return present


def accuracy_of_guessing(summary: Mapping[str, Any], split: str) -> float | None:
    """The share of the most frequent class among the images of a split, `val` or `test`; None for a regression."""
    share = summary["dataset"]["guessing"][split]
    return None if share is None else float(share)


def describe_status(summary: Mapping[str, Any]) -> str:
    """`finished`, `did not learn` or `diverged`."""
    return "did not learn" if summary["learned"] is False else str(summary["status"])


def counted_accuracy(summary: Mapping[str, Any]) -> float | None:
    """The test accuracy that a run counts with: that of guessing if it diverged or did not learn. None for a
    regression."""
    guessing, accuracy = accuracy_of_guessing(summary, "test"), summary["final"]["test_accuracy"]
    if describe_status(summary) != "finished" or guessing is None:
        accuracy = guessing
    return None if accuracy is None else float(accuracy)
