from __future__ import annotations

import pytest
import torch

from bnstudy.models.example import SmallCNN
from bnstudy.train.loop import start_serial
from tests.conftest import CPU, spec_of


def test_the_example_takes_images_of_any_size_and_number_of_channels():
    assert SmallCNN(channels=3, classes=4)(torch.randn(2, 3, 9, 7)).shape == (2, 4)


@pytest.mark.parametrize(("norm", "kind"), [("none", torch.nn.Module), ("group", torch.nn.GroupNorm)])
def test_norms_take_the_place_of_the_example_s_own(norm, kind, digits):
    words = ("model=module", "model.target=bnstudy.models.example.SmallCNN", f"norm={norm}")
    model = start_serial(spec_of(*words), digits, CPU).engine.model
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    assert any(isinstance(module, kind) for module in model.modules())
