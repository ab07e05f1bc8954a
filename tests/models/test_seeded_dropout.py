from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from bnstudy.models.attention import make_attention_explicit
from bnstudy.models.seeded_dropout import SeededDropout, seed_dropout
from bnstudy.rng import stream
from bnstudy.validation import ConfigError
from tests.plain_modules import Cnn, Encoder, Recurrent

SHAPE = (4, 16, 16)


class Applies(nn.Module):
    """Applies a function; `training` as F.dropout gets it."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x, self.training)


def seeded(model: nn.Module, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> nn.Module:
    make_attention_explicit(model)
    seed_dropout(model, shape, "model=mine")
    if isinstance(model, SeededDropout):
        model.seed_(stream(seed, "dropout"))
    return model


ELEMENTS = [
    lambda x, training: F.dropout(x, 0.3, training),
    lambda x, training: F.dropout(x.clone(), 0.3, training, inplace=True),
    lambda x, training: torch.dropout(x, 0.3, training),
]
CHANNELS = [
    lambda x, training: F.dropout2d(x, 0.3, training),
    lambda x, training: F.dropout1d(x.flatten(2), 0.3, training).view_as(x),
]


@pytest.mark.parametrize("function", [*ELEMENTS, *CHANNELS])
def test_dropout_drops_its_share_and_scales_the_others(function):
    out = seeded(Applies(function))(torch.ones(300, *SHAPE))
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.7])
    independent = out if function in ELEMENTS else out[:, :, :1, :1]
    assert float(out.mean()) == pytest.approx(1, abs=4 * (0.3 / 0.7 / independent.numel()) ** 0.5)
    assert bool((out == out[:, :, :1, :1]).all()) == (function in CHANNELS)


@pytest.mark.parametrize("function", [F.alpha_dropout, F.feature_alpha_dropout])
def test_alpha_dropout_keeps_mean_and_variance(function):
    model = seeded(Applies(lambda x, training: function(x, 0.2, training)))
    x = torch.randn(2000, *SHAPE, generator=torch.Generator().manual_seed(0))
    out = model(x)
    assert float(out.mean()) == pytest.approx(0, abs=0.05)
    assert float(out.var()) == pytest.approx(1, abs=0.05)
    expected = function(x, 0.2, True)
    assert float(out.min()) == pytest.approx(float(expected.min()), abs=0.5)


@pytest.mark.parametrize("make", [lambda: nn.Dropout(0.3), lambda: Applies(lambda x, training: F.dropout(x))])
def test_in_evaluation_nothing_is_dropped(make):
    model, x = seeded(make()).eval(), torch.randn(2, *SHAPE)
    assert torch.equal(model(x), x)


def test_noise_follows_from_the_seed_and_the_number_of_draws():
    x = torch.ones(2, *SHAPE)
    first, again, other = (seeded(nn.Sequential(nn.Dropout(0.5)), seed) for seed in (1, 1, 2))
    torch.manual_seed(0)
    once = first(x)
    torch.manual_seed(1)
    assert torch.equal(again(x), once)
    assert not torch.equal(other(x), once)
    assert not torch.equal(first(x), once)


@pytest.mark.parametrize("make", [lambda: Cnn(p=0.3), lambda: Encoder(p=0.2), lambda: nn.Sequential(nn.Dropout(0.5))])
def test_a_stack_draws_the_same_noise_as_each_run_alone(make):
    models = [seeded(make(), seed, (1, 8, 8)) for seed in (0, 1)]
    x = torch.randn(2, 3, 1, 8, 8)
    state = tuple({k: v.detach().clone() for k, v in part.items()} for part in stack_module_state(models))
    for _ in range(2):
        alone = torch.stack([model(images) for model, images in zip(models, x, strict=True)])
        stacked = vmap(lambda p, b, images: functional_call(models[0], (p, b), (images,)))(*state, x)
        torch.testing.assert_close(stacked, alone)
    assert state[1]["dropout_count"].tolist() == [int(model.dropout_count) for model in models]


def test_networks_without_dropout_stay_as_they_are():
    for model in (Cnn(), Cnn(p=0.0), nn.Sequential(nn.Dropout(0.0)), Recurrent()):
        names = [name for name, _ in model.named_buffers()]
        assert type(seeded(model, shape=(1, 8, 8))).__mro__[1] is type(model).__mro__[1]
        assert not isinstance(model, SeededDropout)
        assert [name for name, _ in model.named_buffers()] == names


def test_the_trial_leaves_no_trace():
    model = Cnn(p=0.5).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seeded(model, shape=(1, 8, 8))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert not model.training
    assert not model.bn1.training


@pytest.mark.parametrize(
    "model",
    [
        Recurrent(p=0.5),
        nn.RReLU(),
        Applies(lambda x, training: x + torch.rand_like(x)),
        Applies(lambda x, training: x * torch.empty(len(x), 1, 1, 1).bernoulli_(0.9)),
    ],
)
def test_other_random_numbers_are_refused(model):
    shape = (1, 8, 8) if isinstance(model, Recurrent) else SHAPE
    with pytest.raises(ConfigError, match="model=mine is not allowed: its forward pass in training draws random"):
        seeded(model, shape=shape)


def attends(x, training):
    return F.scaled_dot_product_attention(x, x, x, dropout_p=0.5 if training else 0.0)


def test_dropout_of_attention_weights_is_seeded():
    model, x = seeded(Applies(attends)), torch.randn(2, *SHAPE)
    once = model(x)
    assert not torch.allclose(once, F.scaled_dot_product_attention(x, x, x))
    model.seed_(stream(0, "dropout"))
    assert torch.equal(model(x), once)
    torch.testing.assert_close(model.eval()(x), F.scaled_dot_product_attention(x, x, x))


def test_attention_can_be_differentiated_twice():
    model = seeded(Applies(lambda x, training: F.scaled_dot_product_attention(x, x, x)))
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(model, (x,))
