from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from bnstudy.inits import initialize
from bnstudy.models.layers import Dropout
from bnstudy.rng import Noise, stream
from bnstudy.train.program import Program
from bnstudy.validation import ConfigError
from tests.conftest import spec_of

WIDE = torch.Size((1000, 128))


def dropout(p: float = 0.3, seed: int = 0) -> Dropout:
    layer = Dropout(p)
    layer.seed_(stream(seed, "dropout", "dropout1"))
    return layer


def test_dropout_keeps_the_mean():
    out = dropout(0.3)(torch.ones(WIDE))
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert float(out.mean()) == pytest.approx(1, abs=4 * (0.3 / 0.7 / out.numel()) ** 0.5)


def test_dropout_in_evaluation_or_with_p_0_changes_nothing():
    x = torch.randn(4, 8)
    assert torch.equal(dropout().eval()(x), x)
    assert torch.equal(dropout(0.0)(x), x)


def test_gradients_are_dropped_and_scaled_like_their_values():
    x = torch.ones(4, 8, requires_grad=True)
    out = dropout()(x)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())


def test_each_run_of_a_stack_draws_the_same_noise_as_alone():
    layers = [dropout(p, seed) for p, seed in ((0.1, 0), (0.5, 1), (0.9, 2))]
    x = torch.randn(3, 64, 16, requires_grad=True)
    _, buffers = stack_module_state(layers)
    run = vmap(lambda b, x: functional_call(layers[0], b, (x,)))
    stacked = [run(buffers, x) for _ in range(3)]
    serial = [torch.stack([layer(row) for layer, row in zip(layers, x, strict=True)]) for _ in range(3)]
    assert torch.equal(torch.stack(stacked), torch.stack(serial))
    grads = [torch.autograd.grad(out[-1].sum(), x)[0] for out in (stacked, serial)]
    assert torch.equal(*grads)
    assert buffers["count"].tolist() == [3, 3, 3]


def test_a_compiled_stack_draws_the_same_noise():
    layers = [dropout(p, seed) for p, seed in ((0.1, 0), (0.5, 1))]
    x = torch.ones(2, 8, 16)
    draw = vmap(lambda b, x: functional_call(layers[0], b, (x,)))
    eager, compiled = stack_module_state(layers)[1], stack_module_state(layers)[1]
    fast = Program(lambda x: draw(compiled, x), x)
    draw(eager, x)
    for _ in range(3):
        assert torch.equal(fast(x), draw(eager, x))
    assert compiled["count"].tolist() == [4, 4]


def test_resumed_dropout_continues_with_the_next_noise():
    layer, x = dropout(), torch.ones(16, 16)
    layer(x)
    resumed = Dropout(0.3)
    resumed.load_state_dict(layer.state_dict())
    second = layer(x)
    assert torch.equal(resumed(x), second)
    assert not torch.equal(layer(x), second)


def initialized(*overrides: str, seed: int = 0) -> nn.Module:
    spec = spec_of(*overrides)
    model = spec.model.build(spec.norm, (1, 8, 8), 10)
    initialize(model, spec.init, seed)
    return model


def test_the_noise_depends_on_layer_and_seed_and_not_on_the_norm():
    cases = (("batch", 0), ("batch", 1), ("none", 0))
    models = [initialized("model.dropout=0.2", f"norm={norm}", seed=seed) for norm, seed in cases]
    keys = [[int(m.key) for m in model.modules() if isinstance(m, Dropout)] for model in models]
    assert len({*keys[0], *keys[1]}) == 6
    assert keys[2] == keys[0]


@pytest.mark.parametrize(("model", "places"), [("mlp", ["dropout1", "dropout2", "dropout3"]), ("vgg", ["dropout"])])
def test_models_have_dropout_layers_only_if_dropout_is_set(model, places):
    network = initialized(f"model={model}", "model.dropout=0.2")
    assert [name for name, m in network.named_modules() if isinstance(m, Dropout)] == places
    names = [name for name, _ in network.named_children()]
    assert [names[names.index(place) + 1] for place in places][-1] == "out"
    plain = initialized(f"model={model}")
    assert not any(isinstance(m, Dropout) for m in plain.modules())
    assert [n for n, _ in plain.named_parameters()] == [n for n, _ in network.named_parameters()]


def test_noise_of_norms_differs_between_layers_and_seeds_and_leaves_dropout_as_it_is():
    models = [initialized("norm=noisy_batch", "model.dropout=0.2", seed=seed) for seed in (0, 1)]
    keys = [int(m.key) for model in models for m in model.modules() if isinstance(m, Noise)]
    assert len(keys) == len(set(keys)) == 12
    assert [m.key for m in models[0].modules() if isinstance(m, Dropout)] == [
        m.key for m in initialized("model.dropout=0.2").modules() if isinstance(m, Dropout)
    ]


@pytest.mark.parametrize("model", ["mlp", "vgg"])
@pytest.mark.parametrize("share", [-0.1, 1])
def test_dropout_out_of_range_is_refused(model, share):
    with pytest.raises(ConfigError, match=r"model.dropout=\S+ is not allowed: it must be a fraction in \[0, 1\)"):
        spec_of(f"model={model}", f"model.dropout={share}")
