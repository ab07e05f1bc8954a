"""The standard error of an accuracy effect over the test images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from bnstudy.claims.frames import StudyData
from bnstudy.stats.images import image_standard_error


class ImageError(NamedTuple):
    """standard_error: of a difference in final test accuracy, a share in 0..1. images: their number."""

    standard_error: float
    images: int


def image_error(study: StudyData, with_: Sequence[str], without: Sequence[str]) -> ImageError | None:
    """The standard error over test images of the effect on the final test accuracy.

    Runs that diverged or did not learn count as guessing. None if another run did not record its answers, or if the
    test images differ.

    Args:
        with_, without: run_ids of the two sides; the runs in one place of both share a seed. `without` is empty where
            the accuracy itself is the effect.
    """
    columns = ["run_id", "dataset.checksum", "dataset.test", "chance", "counts_as_guessing"]
    runs = study.runs.filter(columns).set_index("run_id").loc[[*with_, *without]]
    if runs.empty or not study.test_correct or len(runs[["dataset.checksum", "dataset.test"]].drop_duplicates()) > 1:
        return None
    images = int(runs["dataset.test"].iloc[0])
    answers = [_answers(study, run, images) for _, run in runs.iterrows()]
    known = [answer for answer in answers if answer is not None]
    if len(known) < len(answers):
        return None
    without_answers = known[len(with_) :] or [np.zeros(images)] * len(with_)
    return ImageError(image_standard_error(known[: len(with_)], without_answers), images)


def _answers(study: StudyData, run: pd.Series, images: int) -> np.ndarray | None:
    """[images], 1 where the answer is correct; the share of guessing for a run that counts as guessing, None for
    one without classes or without a record."""
    if pd.isna(run["chance"]):
        return None
    return np.full(images, run["chance"]) if run["counts_as_guessing"] else study.test_correct.get(str(run.name))
