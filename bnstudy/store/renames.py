"""Names that have changed since the first stores were written.

A run's identity is a hash of its configuration, in which classes and fields keep the names that they had first: so a
rename changes no `run_id`. Configurations with former names, in stores and in files of the user's, are read as if they
had the present ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FORMER_TARGETS: dict[str, str] = {
    "bnstudy.run.Evaluation": "bnstudy.spec.Evaluation",
    "bnstudy.when.At": "bnstudy.spec.At",
    "bnstudy.when.AtEnd": "bnstudy.spec.AtEnd",
    "bnstudy.when.AtShares": "bnstudy.spec.AtShares",
    "bnstudy.when.Every": "bnstudy.spec.Every",
    "bnstudy.when.LogSpaced": "bnstudy.spec.LogSpaced",
    "bnstudy.when.LogThenRegular": "bnstudy.spec.LogThenRegular",
    "bnstudy.sweep.settings.StudySpec": "bnstudy.launch.request.Study",
    "bnstudy.sweep.settings.StudiesSpec": "bnstudy.launch.request.Studies",
}
"""`_target_` -> the one that the class had first."""

FORMER_FIELDS = {"bnstudy.run.Evaluation": {"images": "pictures"}}
"""`_target_` -> field -> the name that the field had first."""

PRESENT_TARGETS = {former: present for present, former in FORMER_TARGETS.items()}


def with_former_names(node: Any) -> Any:
    """Plain data of a configuration with the names that classes and fields had first."""
    if isinstance(node, list | tuple):
        return [with_former_names(value) for value in node]
    if not isinstance(node, Mapping):
        return node
    target: str = node.get("_target_", "")
    fields = FORMER_FIELDS.get(target, {})
    renamed = {fields.get(key, key): with_former_names(value) for key, value in node.items()}
    return {**renamed, "_target_": FORMER_TARGETS.get(target, target)} if target else renamed


def with_present_names(node: Any) -> Any:
    """Plain data of a configuration with the names that classes and fields have now.

    Where a field stands under both names, the former one counts: the present one is then a default that a file with
    former names could not know.
    """
    if isinstance(node, list | tuple):
        return [with_present_names(value) for value in node]
    if not isinstance(node, Mapping):
        return node
    given: str = node.get("_target_", "")
    target = PRESENT_TARGETS.get(given, given)
    present = {former: name for name, former in FORMER_FIELDS.get(target, {}).items()}
    renamed = {key: with_present_names(value) for key, value in node.items() if key not in present}
    renamed |= {present[key]: with_present_names(value) for key, value in node.items() if key in present}
    return {**renamed, "_target_": target} if target else renamed
