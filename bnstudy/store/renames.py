"""Classes, fields and claims that were renamed after the first stores were written.

A run's identity is a hash of its configuration with the first name of each class and field, so a rename changes no
`run_id`. Configurations with former names, in stores and in users' files, are read as if they had the present names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bnstudy.validation import ConfigError, show

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

FORMER_KEYS = {
    "evaluation.pictures": "evaluation.images",
    "when.listed": "when.steps",
    "when.shares": "when.fractions",
}
"""The present ends of keys of overrides, by their former ends."""

FORMER_CLAIMS = {
    "higher_useful_rates": "wider_learning_rates",
    "less_init_deviation": "less_init_dependence",
    "lower_training_loss": "faster_convergence",
    "precise_statistics_differ": "precise_statistics_help",
    "small_batches_need_precise_statistics": "precise_statistics_help",
}
"""Claims that were renamed or merged into another that says the same, which plans of old stores name."""

DEFAULTS = {"images": 2000}
"""The values in the packaged configs of renamed fields whose nodes users' files complete."""

PRESENT_TARGETS = {former: present for present, former in FORMER_TARGETS.items()}


def with_former_names(node: Any) -> Any:
    """A configuration, as plain data, with the first name of each class and field."""

    def rename(target: str, values: dict[str, Any]) -> dict[str, Any]:
        fields = FORMER_FIELDS.get(target, {})
        return {
            **{fields.get(key, key): value for key, value in values.items()},
            "_target_": FORMER_TARGETS.get(target, target),
        }

    return _rename_nodes(node, rename)


def with_present_names(node: Any) -> Any:
    """A configuration, as plain data, with the present name of each class and field.

    A user's file with the former name of a field completes a node that has the present name with its default: then the
    former name counts.

    Raises:
        ConfigError: a field is given under both names.
    """

    def rename(target: str, values: dict[str, Any]) -> dict[str, Any]:
        target = PRESENT_TARGETS.get(target, target)
        former = {name: values.pop(old) for name, old in FORMER_FIELDS.get(target, {}).items() if old in values}
        for name, value in former.items():
            if name in DEFAULTS and values.get(name, value) not in (value, DEFAULTS[name]):
                old = FORMER_FIELDS[target][name]
                raise ConfigError(
                    f"{name}={show(values[name])} and {old}={show(value)} are both given: {old} is the former name of "
                    f"{name}; rename it in your configuration."
                )
        return {**values, **former, "_target_": target}

    return _rename_nodes(node, rename)


def with_present_key(override: str) -> str:
    """An override, as typed, with the present name of its key."""
    key, assignment, value = override.partition("=")
    for former, present in FORMER_KEYS.items():
        if key.lstrip("+~") == former or key.endswith(f".{former}"):
            key = key.removesuffix(former) + present
    return f"{key}{assignment}{value}"


def _rename_nodes(node: Any, rename: Callable[[str, dict[str, Any]], dict[str, Any]]) -> Any:
    if node is None or isinstance(node, str | int | float):  # most nodes are
        return node
    if isinstance(node, list | tuple):
        return [_rename_nodes(value, rename) for value in node]
    if not isinstance(node, Mapping):
        return node
    values = {key: _rename_nodes(value, rename) for key, value in node.items()}
    return rename(values["_target_"], values) if values.get("_target_") else values
