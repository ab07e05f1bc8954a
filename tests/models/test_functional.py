"""Networks that run with other tensors, compared with copies that hold these tensors."""

from __future__ import annotations

import copy

import torch
from torch import nn

from bnstudy.models.functional import run_with, tied
from tests.plain_modules import TwoNames


def test_a_network_with_tied_tensors_and_layers_of_two_names_runs_with_other_tensors():
    model, x = TwoNames(shared=True).eval(), torch.randn(3, 1, 8, 8)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1)
    before = model(x)
    torch.testing.assert_close(run_with(model, dict(other.named_parameters()), x), other(x))
    torch.testing.assert_close(model(x), before)
    assert all(isinstance(p, nn.Parameter) for p in (model.hidden1.weight, model.again.weight))
    assert list(tied(model)) == [("layers.2.weight", "hidden2.weight")]


def test_a_buffer_that_the_network_assigns_is_returned():
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            self.count = self.count + 1
            return x

    model, tensors = Counter(), {"count": torch.tensor(4.0)}
    run_with(model, tensors, torch.zeros(1))
    assert tensors["count"] == 5
    assert model.count == 0
