from __future__ import annotations

from dataclasses import fields
from importlib import import_module

import pytest

from bnstudy.config.build import build_run_spec
from bnstudy.store.renames import (
    DEFAULTS,
    FORMER_FIELDS,
    FORMER_TARGETS,
    with_former_names,
    with_present_key,
    with_present_names,
)
from bnstudy.validation import ConfigError, to_dict
from tests.conftest import spec_of


@pytest.mark.parametrize("target", FORMER_TARGETS)
def test_the_present_names_of_classes_and_fields_exist(target):
    module, _, name = target.rpartition(".")
    names = {field.name for field in fields(getattr(import_module(module), name))}
    assert FORMER_FIELDS.get(target, {}).keys() <= names


@pytest.mark.parametrize("probe", ["backprop", "gap"])
def test_a_config_with_former_names_is_the_same_run(probe):
    spec = spec_of("norm=ghost", f"probe={probe}")
    former = with_former_names(to_dict(spec))
    assert former["norm"]["_target_"] == "bnstudy.norms.GhostBatchNorm"
    assert with_present_names(former) == to_dict(spec)
    assert build_run_spec(former).run_id == spec.run_id


def test_a_former_name_of_a_field_counts_against_a_default_only():
    node = {"_target_": "bnstudy.spec.At", "listed": [3], "steps": [0]}
    assert with_present_names(node) == {"_target_": "bnstudy.when.At", "steps": [3]}
    evaluation = {"_target_": "bnstudy.run.Evaluation", "pictures": 100, "images": 2000}
    assert with_present_names(evaluation)["images"] == 100
    with pytest.raises(ConfigError, match="images=50 and pictures=100 are both given"):
        with_present_names({**evaluation, "images": 50})


def test_the_packaged_config_gives_the_defaults_of_renamed_fields():
    assert {name: getattr(spec_of().evaluation, name) for name in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize(
    ("former", "present"),
    [
        ("evaluation.pictures=5", "evaluation.images=5"),
        ("++evaluation.pictures=5,6", "++evaluation.images=5,6"),
        ("probe.dead_units.when.shares=[0,1]", "probe.dead_units.when.fractions=[0,1]"),
        ("probe.dead_units.when.fractions=[0,1]", "probe.dead_units.when.fractions=[0,1]"),
    ],
)
def test_overrides_with_former_keys_are_read(former, present):
    assert with_present_key(former) == present
