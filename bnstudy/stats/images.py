"""The uncertainty of an accuracy effect that comes from the test images: they are a sample too."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike


def image_standard_error(correct_with: ArrayLike, correct_without: ArrayLike) -> float:
    """Standard error over test images of the mean difference in accuracy, a share: sd(D) / sqrt(m), with D_j the mean
    over the seeds of correct_with - correct_without on image j.

    It holds for these networks and other images; an interval over seeds holds for other seeds and these images.

    Args:
        correct_with, correct_without: [seeds, m], the same seeds and images; 1 if the network of the seed classifies
            the image correctly, else 0. A run that counts as guessing has the share of guessing for every image.

    Returns: NaN without seeds or with fewer than two images.

    Raises:
        ValueError: the shapes differ.
    """
    with_, without = np.asarray(correct_with), np.asarray(correct_without)
    if with_.shape != without.shape:
        raise ValueError(f"The arms differ in seeds or images: their shapes are {with_.shape} and {without.shape}.")
    seeds, m = with_.shape
    if seeds == 0 or m < 2:
        return math.nan
    effects = with_.mean(0) - without.mean(0)
    return float(effects.std(ddof=1) / math.sqrt(m))
