from __future__ import annotations

from dataclasses import fields
from importlib import import_module

import pytest

from bnstudy.config.build import build_run_spec
from bnstudy.store.renames import FORMER_FIELDS, FORMER_TARGETS, with_former_names, with_present_names
from bnstudy.validation import to_dict
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


def test_the_former_name_of_a_field_counts_if_both_names_are_given():
    node = {"_target_": "bnstudy.spec.At", "listed": [3], "steps": [0]}
    assert with_present_names(node) == {"_target_": "bnstudy.when.At", "steps": [3]}
