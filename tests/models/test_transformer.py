"""Transformers: their shape, agreement with torch's, tokens and absent tokens."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from bnstudy.inits import initialize
from bnstudy.models.layers import Dropout
from bnstudy.models.sequences import Present
from bnstudy.models.structure import has_branches, norm_parameters
from bnstudy.models.tracing import look
from bnstudy.models.transformer import in_patches, sinusoids
from bnstudy.train.build import network_of
from bnstudy.validation import ConfigError
from tests.conftest import spec_of

SHAPE = (1, 8, 8)
X = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0))
NORMS = ("none", "batch", "batch_per_step", "layer", "group", "rms", "dyt", "weight")


def network(*overrides: str, shape=SHAPE, seed: int = 3) -> nn.Module:
    """A small Transformer with initial weights."""
    spec = spec_of("model=transformer", "model.width=16", *overrides)
    model = network_of(spec, shape, 10)
    initialize(model, spec.init, seed)
    return model


def torch_block(block: nn.Module, norm_first: bool) -> nn.Module:
    """torch's encoder layer with the weights of a block."""
    theirs = nn.TransformerEncoderLayer(16, 4, 64, dropout=0.0, batch_first=True, norm_first=norm_first)
    attention = block.attention
    projections = (attention.query, attention.key, attention.value)
    pairs = [
        (theirs.self_attn.in_proj_weight, torch.cat([p.weight for p in projections])),
        (theirs.self_attn.in_proj_bias, torch.cat([p.bias for p in projections])),
        (theirs.self_attn.out_proj.weight, attention.out.weight),
        (theirs.self_attn.out_proj.bias, attention.out.bias),
        (theirs.linear1.weight, block.mlp.hidden.weight.weight),
        (theirs.linear1.bias, block.mlp.hidden.weight.bias),
        (theirs.linear2.weight, block.mlp.out.weight),
        (theirs.linear2.bias, block.mlp.out.bias),
    ]
    for i in (1, 2):
        own = list(getattr(block, f"norm{i}").parameters())
        pairs += zip(getattr(theirs, f"norm{i}").parameters(), own, strict=True)
    with torch.no_grad():
        for target, value in pairs:
            target.copy_(value)
    return theirs


@pytest.mark.parametrize("order", ["pre", "post"])
def test_the_network_agrees_with_torchs_encoder_layers_of_the_same_weights(order):
    model = network(f"model.order={order}", "norm=layer").train()
    with torch.no_grad():
        for p in model.parameters():  # norms and biases too
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    x = model.embed(X.flatten(1, 2)) + sinusoids(8, 16)
    for name in model.blocks:
        x = torch_block(getattr(model, name), order == "pre").train()(x)
    if order == "pre":
        scale, shift = model.norm.parameters()
        x = nn.functional.layer_norm(x, (16,), scale, shift)
    torch.testing.assert_close(model(X), model.out(x.mean(1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("order", "last_norm"), [("pre", 2 * 16), ("post", 0)])
def test_the_network_has_as_many_parameters_as_its_formula_says(order, last_norm):
    w, depth = 16, 2
    block = 4 * (w * w + w) + (4 * w * w + 4 * w) + (4 * w * w + w) + 2 * 2 * w
    total = (8 * w + w) + depth * block + last_norm + (10 * w + 10)
    assert sum(p.numel() for p in network(f"model.order={order}", "norm=layer").parameters()) == total


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("order", ["pre", "post"])
def test_every_norm_of_tokens_fits(order, norm):
    model = network(f"model.order={order}", f"norm={norm}")
    assert torch.isfinite(model(X)).all()
    plain = sum(p.numel() for p in network(f"model.order={order}", "norm=none").parameters())
    assert sum(math.prod(p.shape) for n, p in model.named_parameters() if n in norm_parameters(model)) == (
        sum(p.numel() for p in model.parameters()) - plain
    )


def test_zero_weights_of_the_classifier_give_the_loss_of_guessing():
    spec = spec_of("model=transformer", "model.width=16", "norm=layer")
    model = network("norm=layer")
    nn.init.zeros_(model.out.weight.weight)
    nn.init.zeros_(model.out.weight.bias)
    assert spec.loss.mean(model(X), torch.arange(5)).item() == pytest.approx(math.log(10))


def test_each_block_starts_as_its_shortcut_with_skipinit():
    model = network("norm=skipinit")
    assert has_branches(model)
    x = torch.randn(2, 8, 16)
    assert torch.equal(model.block1(x, Present.of(torch.ones(2, 8, dtype=torch.bool))), x)


def test_weight_norm_starts_as_the_network_without_norm():
    torch.testing.assert_close(network("norm=weight")(X), network("norm=none")(X))


def test_layers_are_named_in_order_of_depth():
    block = ["attention.query", "attention.key", "attention.value", "attention.out", "mlp.hidden", "mlp.out"]
    names = ["embed", *(f"block{i}.{layer}" for i in (1, 2) for layer in block), "out"]
    for norm in ("none", "layer", "weight"):
        seen = look(network(f"norm={norm}"), X)
        assert list(seen.weights) == names
        assert [call.name for call in seen.activations] == ["block1.mlp.hidden", "block2.mlp.hidden"]
        assert not seen.unseen


@pytest.mark.parametrize("order", ["pre", "post"])
@pytest.mark.parametrize("norm", ["layer", "batch", "batch_per_step"])
def test_absent_tokens_change_nothing(norm, order):
    """Rows behind the fifth are absent: the network gives what it gives for images of five rows."""
    model = network(f"model.order={order}", f"norm={norm}").train()
    short = network(f"model.order={order}", f"norm={norm}", shape=(1, 5, 8)).train()
    x = X.clone()
    x[:, :, 5:] = torch.nan
    torch.testing.assert_close(model(x), short(X[:, :, :5]))


def test_statistics_of_each_position_are_those_of_one_batch_norm_per_position():
    """Images of 3 to 8 rows, against a BatchNorm1d for each position that gets the images that have it."""
    model, lengths = network("norm=batch_per_step").train(), torch.tensor([8, 3, 5, 8, 6])
    x = X.where((torch.arange(8) < lengths[:, None])[:, None, :, None], torch.nan)
    theirs = [nn.BatchNorm1d(16) for _ in range(8)]
    seen: list[tuple[Tensor, Tensor]] = []
    model.norm.register_forward_hook(lambda _, inputs, out: seen.append((inputs[0], out)))
    model(x)
    model.eval()(x)
    for (z, out), train in zip(seen, (True, False), strict=True):
        for t, norm in enumerate(theirs):
            present = lengths > t
            torch.testing.assert_close(out[present, t], norm.train(train)(z[present, t]), rtol=1e-4, atol=1e-5)


def test_gradients_are_finite_where_tokens_are_absent():
    model, x = network("norm=batch"), X.clone()
    x[0, :, 1:] = torch.nan
    model(x).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_patches_are_tokens_in_reading_order():
    """The first token of 2x2 patches of a 4x6 image of two channels holds its upper left corner."""
    x = torch.arange(48.0).view(1, 2, 4, 6)
    tokens = in_patches(x, 2).view(1, 2, 6, 4)
    assert tokens[0, 0, 0].tolist() == [0, 1, 6, 7]
    assert tokens[0, 0, 1].tolist() == [2, 3, 8, 9]
    assert tokens[0, 1, 3].tolist() == [36, 37, 42, 43]


@pytest.mark.parametrize(
    ("reading", "tokens", "features"), [((), 8, 24), (("model.chunk=16",), 4, 48), (("model.patch=4",), 4, 48)]
)
def test_tokens_are_rows_chunks_or_patches(reading, tokens, features):
    model = network("norm=none", *reading, shape=(3, 8, 8))
    assert model.embed.in_features == features
    assert model.positions.shape == (tokens, 16)
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 10)


def test_positions_are_the_sines_and_cosines_of_the_paper():
    for width in (1, 7, 16):
        expected = [
            [(math.cos if i % 2 else math.sin)(t / 10_000 ** (2 * (i // 2) / width)) for i in range(width)]
            for t in range(9)
        ]
        torch.testing.assert_close(sinusoids(9, width), torch.tensor(expected))


def test_the_order_of_rows_matters_and_dropout_is_seeded():
    model = network("norm=none")
    assert not torch.allclose(model(X), model(X.flip(2)), atol=1e-3)

    def outputs(seed: int) -> Tensor:
        noisy = network("norm=none", "model.dropout=0.2", seed=seed).train()
        assert sum(isinstance(m, Dropout) for m in noisy.modules()) == 1 + 2 * 2
        return noisy(X)

    assert torch.equal(outputs(0), outputs(0))
    assert not torch.allclose(network("norm=none", "model.dropout=0.2").train()(X), model(X))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ("model.heads=3",),
            r"model.heads=3 is not allowed: it must be a divisor of model.width=16 \(1, 2, 4, 8, 16\)",
        ),
        (("model.chunk=7",), "model.chunk=7 is not allowed: it must be a divisor of the 64 pixels"),
        (("model.patch=3",), "model.patch=3 is not allowed: it must be a divisor of the sides"),
        (("model.patch=2", "model.chunk=4"), "model.patch=2 is not allowed: it must be null with model.chunk=4"),
        (("norm=layer", "norm.position=after"), "choose model.order=post"),
        (("model.depth=0",), "1 or more blocks"),
        (("norm=instance",), "norm=instance is not allowed"),
    ],
)
def test_values_that_do_not_fit_are_refused(overrides, sentence):
    with pytest.raises(ConfigError, match=sentence):
        network(*overrides)
