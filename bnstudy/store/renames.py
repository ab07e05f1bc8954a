"""Classes and fields that were renamed after the first stores were written.

A run's identity is a hash of its configuration with the first name of each class and field, so a rename changes no
`run_id`. Configurations with former names, in stores and in users' files, are read as if they had the present names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FORMER_TARGETS: dict[str, str] = {
    "bnstudy.norms.batch.BatchNorm": "bnstudy.norms.BatchNorm",
    "bnstudy.norms.batch.GhostBatchNorm": "bnstudy.norms.GhostBatchNorm",
    "bnstudy.norms.batch.NoisyBatchNorm": "bnstudy.norms.NoisyBatchNorm",
    "bnstudy.norms.group.GroupNorm": "bnstudy.norms.GroupNorm",
    "bnstudy.norms.group.InstanceNorm": "bnstudy.norms.InstanceNorm",
    "bnstudy.norms.group.LayerNorm": "bnstudy.norms.LayerNorm",
    "bnstudy.norms.none.NoNorm": "bnstudy.norms.NoNorm",
    "bnstudy.norms.skipinit.SkipInit": "bnstudy.norms.SkipInit",
    "bnstudy.norms.weight.WeightNorm": "bnstudy.norms.WeightNorm",
    "bnstudy.run.Evaluation": "bnstudy.spec.Evaluation",
    "bnstudy.when.At": "bnstudy.spec.At",
    "bnstudy.when.AtEnd": "bnstudy.spec.AtEnd",
    "bnstudy.when.AtFractions": "bnstudy.spec.AtShares",
    "bnstudy.when.Every": "bnstudy.spec.Every",
    "bnstudy.when.LogSpaced": "bnstudy.spec.LogSpaced",
    "bnstudy.when.LogThenRegular": "bnstudy.spec.LogThenRegular",
    "bnstudy.sweep.settings.StudySpec": "bnstudy.launch.request.Study",
    "bnstudy.sweep.settings.StudiesSpec": "bnstudy.launch.request.Studies",
}
"""The first `_target_` of each class that was renamed, by its present one."""

FORMER_FIELDS = {
    "bnstudy.run.Evaluation": {"images": "pictures"},
    "bnstudy.when.At": {"steps": "listed"},
    "bnstudy.when.AtFractions": {"fractions": "shares"},
}
"""The first name of each field that was renamed, by the class's present `_target_` and the field's present name."""

PRESENT_TARGETS = {former: present for present, former in FORMER_TARGETS.items()}


def with_former_names(node: Any) -> Any:
    """A configuration, as plain data, with the first name of each class and field."""
    if isinstance(node, list | tuple):
        return [with_former_names(value) for value in node]
    if not isinstance(node, Mapping):
        return node
    target: str = node.get("_target_", "")
    fields = FORMER_FIELDS.get(target, {})
    renamed = {fields.get(key, key): with_former_names(value) for key, value in node.items()}
    return {**renamed, "_target_": FORMER_TARGETS.get(target, target)} if target else renamed


def with_present_names(node: Any) -> Any:
    """A configuration, as plain data, with the present name of each class and field.

    If a field is given under both names, the former one counts. A user's file with former names can hold the present
    name only as a default.
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
