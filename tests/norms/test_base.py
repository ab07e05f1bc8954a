from __future__ import annotations

import pytest
import torch

from bnstudy.norms.batch import BatchNorm, GhostBatchNorm, NoisyBatchNorm
from bnstudy.norms.group import GroupNorm, InstanceNorm, LayerNorm
from bnstudy.norms.none import NoNorm
from bnstudy.norms.skipinit import SkipInit
from bnstudy.norms.weight import WeightNorm
from bnstudy.validation import ConfigError
from tests.conftest import spec_of

X = torch.randn(6, 8, 5, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("norm", [NoNorm, SkipInit, WeightNorm])
def test_norms_that_leave_activations_as_they_are_ignore_the_position_and_keep_biases(norm):
    assert norm(position="after") == norm()
    assert norm().keeps_bias
    assert torch.equal(norm().build(8, layout="maps")(X), X)


@pytest.mark.parametrize("norm", [BatchNorm, LayerNorm, InstanceNorm, GroupNorm, GhostBatchNorm, NoisyBatchNorm])
def test_affine_norms_have_a_scale_and_shift_per_channel(norm):
    assert [p.shape for p in norm().build(8, layout="maps").parameters()] == [(8,), (8,)]
    assert list(norm(affine=False).build(8, layout="maps").parameters()) == []


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: GroupNorm(groups=3).build(8, True),
            r"norm.groups=3 .* a divisor of the layer's 8 channels \(1, 2, 4, 8\)",
        ),
        (lambda: GroupNorm(groups=8).build(8, False), "norm.groups=8 is not allowed"),
        (lambda: InstanceNorm().build(8, False), "norm=instance is not allowed with fully connected layers"),
        (lambda: spec_of("norm=batch", "batch_size=1"), "batch_size=1 is not allowed with norm=batch"),
        (lambda: BatchNorm(momentum=0), "norm.momentum=0 is not allowed"),
        (lambda: LayerNorm(eps=0), "norm.eps=0 is not allowed"),
        (lambda: GhostBatchNorm(size=1), "norm.size=1 is not allowed: it must be at least 2"),
        (
            lambda: spec_of("norm=ghost", "batch_size=100"),
            "batch_size=100 is not allowed with norm=ghost and norm.size=16: it must be .* such as 96 or 112",
        ),
        (lambda: spec_of("norm=ghost", "batch_size=8"), "a multiple of norm.size, such as 16"),
        (lambda: spec_of("norm=noisy_batch", "batch_size=1"), "batch_size=1 is not allowed with norm=noisy_batch"),
        (lambda: NoisyBatchNorm(shift=-1), "norm.shift=-1 is not allowed: it must be 0 or more"),
        (lambda: NoisyBatchNorm(scale=0.5), "norm.scale=0.5 is not allowed: it must be at least 1"),
        (lambda: NoisyBatchNorm(jitter=-1), "norm.jitter=-1 is not allowed: it must be 0 or more"),
    ],
)
def test_values_and_inputs_for_which_a_norm_is_not_defined_are_refused(make, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make()
