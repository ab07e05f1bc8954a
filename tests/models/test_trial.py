"""Forward passes that only find out what a network does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bnstudy.models.trial import refuse_memory, trial
from bnstudy.validation import ConfigError
from tests.plain_modules import Cnn, TwoNames

SHAPE = (1, 8, 8)


class WithMemory(nn.Module):
    """Subtracts the mean of the batch before."""

    def __init__(self, as_buffer: bool) -> None:
        super().__init__()
        self.out = nn.Linear(64, 10)
        if as_buffer:
            self.register_buffer("mean", torch.zeros(10))
        else:
            self.mean = None

    def forward(self, x: Tensor) -> Tensor:
        z = self.out(x.flatten(1))
        mean, self.mean = self.mean, z.detach().mean(0)
        return z if mean is None else z - mean


@pytest.mark.parametrize("model", [TwoNames(), Cnn(), WithMemory(as_buffer=True), WithMemory(as_buffer=False)])
def test_a_trial_leaves_no_trace(model):
    model.eval()
    state, attributes = {k: v.clone() for k, v in model.state_dict().items()}, set(vars(model))
    with trial(model):
        model(torch.randn(2, *SHAPE))
    assert set(vars(model)) == attributes
    assert not model.training
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_a_network_that_remembers_a_batch_outside_of_its_buffers_is_refused():
    with pytest.raises(ConfigError, match="depends on the one before it by an attribute that is no buffer"):
        refuse_memory(WithMemory(as_buffer=False), SHAPE, "model=WithMemory")
    for model in (WithMemory(as_buffer=True), TwoNames(), Cnn()):
        refuse_memory(model, SHAPE, "model=Other")
