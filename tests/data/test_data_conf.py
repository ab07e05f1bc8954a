from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from bnstudy.data.base import DataSpec

CONF = Path(__file__).resolve().parents[2] / "conf" / "data"


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_yaml_file_lists_every_field_of_its_class_with_its_default(path: Path) -> None:
    values = yaml.safe_load(path.read_text())
    module, _, name = values.pop("_target_").rpartition(".")
    cls = getattr(import_module(module), name)
    assert issubclass(cls, DataSpec)
    assert cls(**values) == cls()
    assert set(values) == {f.name for f in fields(cls)}
