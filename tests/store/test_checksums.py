from __future__ import annotations

import itertools
from typing import Any

import pytest

from bnstudy.data.gaussian import Gaussian
from bnstudy.store.checksums import GENERATED, describe_versions, find_versions, source
from bnstudy.validation import to_dict

SHAPES = {"_target_": "x.ImageFolder", "name": "shapes", "train_size": None, "val_fraction": 0.1, "augment": "none"}


def runs(*settings_and_checksums: tuple[dict[str, Any], Any]) -> list[tuple[str, dict[str, Any], Any]]:
    return [(f"r{i}", {**SHAPES, **data}, checksum) for i, (data, checksum) in enumerate(settings_and_checksums)]


def test_runs_that_a_naive_comparison_of_pairs_finds_different_are_found() -> None:
    grid = itertools.product(
        ["a", "b"], [100, None], ["none", "crop_flip"], ["x", "y", "splits:x", "splits:y", "", None]
    )
    made = runs(*(({"name": n, "train_size": t, "augment": g}, c) for n, t, g, c in grid))

    def differ(one: dict[str, Any], of_one: str, other: dict[str, Any], of_other: str) -> bool:
        whole = {of_one, of_other} == {"x", "y"}
        split = {of_one, of_other} == {"splits:x", "splits:y"} and one["train_size"] == other["train_size"]
        return one["name"] == other["name"] and (whole or split)

    naive = {(a, b) for (a, x, c), (b, y, d) in itertools.permutations(made, 2) if differ(x, c, y, d)}
    found = set()
    for versions in find_versions(made):
        for one, other in itertools.permutations(versions.values(), 2):
            found |= set(itertools.product(one, other))
    assert found == naive != set()


def test_the_scale_of_pixels_does_not_change_the_images() -> None:
    assert len(find_versions(runs(({}, "00"), ({"scale": "unit"}, "01")))) == 1


def test_the_source_is_the_same_from_a_spec_and_from_columns() -> None:
    columns = {f"data.{key}": value for key, value in reversed(SHAPES.items())}
    assert source(SHAPES, "00") == source(columns, "00")


@pytest.mark.parametrize("checksums", [["00", "00"], ["00", ""], ["00", float("nan")], ["00", "splits:01"]])
def test_runs_of_an_earlier_version_or_of_another_kind_of_checksum_are_not_compared(checksums: list[Any]) -> None:
    assert find_versions(runs(*(({}, checksum) for checksum in checksums))) == []


def test_generated_data_has_one_version_whatever_checksums_earlier_versions_gave_it() -> None:
    gaussian = to_dict(Gaussian())
    assert gaussian["_target_"] == GENERATED
    for prefix in ("", "data."):
        settings = {prefix + key: value for key, value in gaussian.items()}
        assert find_versions([("a", settings, "00"), ("b", settings, "01")]) == []
    others = {**gaussian, "_target_": "mine.Images"}
    assert find_versions([("a", others, "00"), ("b", others, "01")]) == [{"00": ["a"], "01": ["b"]}]


def test_the_sentence_counts_and_names_the_runs_of_each_version() -> None:
    [versions] = find_versions(runs(({}, "0123456789"), *[({"train_size": 5}, "9876543210")] * 3))
    sentence = describe_versions("shapes", versions)
    assert "run r0 on images 012345; 3 runs (r1, r2 and 1 more) on images 987654" in sentence
