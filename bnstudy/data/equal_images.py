"""Images that are equal where images differ: in a split, in a class, in two splits, under two labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from bnstudy.data.dataset import DecodedImages
from bnstudy.validation import ConfigError


def find_equal_images(decoded: DecodedImages, names: Sequence[str]) -> Iterator[str]:
    """A sentence for each way in which images are equal that makes results questionable.

    names: of the training images, then of the test images.

    Raises:
        ConfigError: all images of a split are equal.
    """
    images = _table(decoded, names)
    for split, rows in images.groupby("split", sort=False):
        if len(rows) > 1 and rows.pixels.nunique() == 1:
            raise ConfigError(f"All {len(rows):,} images in {split}/ are equal, from {rows.name.iloc[0]} on.")
    yield from _equal_classes(images, decoded.classes)
    yield from _leaks(images)
    yield from _contradictions(images)


def _table(decoded: DecodedImages, names: Sequence[str]) -> pd.DataFrame:
    """One row an image: `split`, `label`, `name`, and `pixels`, a digest of its pixels."""
    splits = {"train": (decoded.train_x, decoded.train_y), "test": (decoded.test_x, decoded.test_y)}
    parts = [
        pd.DataFrame({"split": split, "label": y.numpy(), "pixels": [_digest(image) for image in x.numpy()]})
        for split, (x, y) in splits.items()
    ]
    return pd.concat(parts, ignore_index=True).assign(name=list(names))


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def _equal_classes(images: pd.DataFrame, classes: Sequence[str]) -> Iterator[str]:
    counts = images.groupby(["split", "label"], sort=False).pixels.agg(["size", "nunique"])
    equal = counts[(counts["size"] > 1) & (counts["nunique"] == 1)]
    if len(equal):
        split, label = equal.index[0]
        yield f"In {len(equal):,} class folders all images are equal: first {split}/{classes[label]}."


def _leaks(images: pd.DataFrame) -> Iterator[str]:
    train, test = (images[images.split == split] for split in ("train", "test"))
    both = test[test.pixels.isin(train.pixels)]
    if len(both):
        first = both.iloc[0]
        twin = train.name[train.pixels == first.pixels].iloc[0]
        yield f"{len(both):,} of {len(test):,} test images are training images, too: first {first['name']} = {twin}."


def _contradictions(images: pd.DataFrame) -> Iterator[str]:
    labels = images.groupby("pixels").label.transform("nunique")
    odd = images[labels > 1]
    if len(odd):
        first = odd.iloc[0]
        twin = odd[(odd.pixels == first.pixels) & (odd.label != first.label)].iloc[0]
        yield f"{len(odd):,} images have an equal one in another class: first {first['name']} = {twin['name']}."
