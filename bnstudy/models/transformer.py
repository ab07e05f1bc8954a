"""Transformers that read images as sequences of rows, pixels or patches."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from bnstudy.models.attention import attend
from bnstudy.models.base import ModelSpec
from bnstudy.models.layers import ACTIVATIONS, ActivationName, Dropout, TokenNorm, classifier
from bnstudy.models.sequences import Present, read_tokens, token_sizes
from bnstudy.norms.base import NormSpec
from bnstudy.validation import PER_RUN, ConfigError


@dataclass(frozen=True)
class Transformer(ModelSpec):
    """The encoder of Vaswani et al. 2017, sections 3 and 5.4, with a linear embedding of an image's tokens.

    The classifier gets the mean of the tokens that an image has; absent tokens are not attended to. Positions are
    their sines and cosines, so a length that training has not seen has a position too.

    depth: number of blocks.
    width: features of a token. The hidden layer of a block's MLP has four times as many units.
    activation: of the hidden layer of a block's MLP.
    order: post, norm(x + f(x)), as in Vaswani et al. 2017; or pre, x + f(norm(x)), with a norm before the classifier
        (Xiong et al. 2020).
    chunk: pixels in a token, in reading order; null for the rows.
    patch: tokens are patches of patch x patch pixels (Dosovitskiy et al. 2021); null for rows or chunks.
    dropout: fraction of the values dropped in the sum of embedding and position, and at the end of each branch.
    """

    reads_lengths: ClassVar[bool] = True

    depth: int = 2
    width: int = 64
    heads: int = 4
    activation: ActivationName = "relu"
    order: Literal["pre", "post"] = "pre"
    chunk: int | None = None
    patch: int | None = None
    dropout: float = field(default=0.0, metadata=PER_RUN)

    def check(self) -> None:
        self.require(self.depth >= 1, "depth", "1 or more blocks")
        self.require(self.width >= 1, "width", "at least 1")
        self.require(self.heads >= 1, "heads", "at least 1")
        if self.width % self.heads:
            divisors = ", ".join(str(d) for d in range(1, self.width + 1) if self.width % d == 0)
            raise self.refuse("heads", f"a divisor of model.width={self.width} ({divisors})")
        self.require(self.chunk is None or self.chunk >= 1, "chunk", "at least 1 pixel, or null for rows")
        self.require(self.patch is None or self.patch >= 1, "patch", "at least 1 pixel, or null for rows")
        self.require(self.chunk is None or self.patch is None, "patch", f"null with model.chunk={self.chunk}")
        self.require(0 <= self.dropout < 1, "dropout", "a fraction in [0, 1)")

    def build(self, norm: NormSpec, shape: tuple[int, int, int], classes: int) -> nn.Module:
        height, width = shape[1:]
        if self.chunk is not None and height * width % self.chunk:
            raise self.refuse("chunk", f"a divisor of the {height * width} pixels of an image of {height}x{width}")
        if self.patch is not None and (height % self.patch or width % self.patch):
            raise self.refuse("patch", f"a divisor of the sides of an image of {height}x{width}")
        if norm.position == "after":
            raise ConfigError(
                "norm.position=after is not allowed with model=transformer, whose norms are not beside an activation; "
                "it must be before. To place the norms behind the branches, choose model.order=post."
            )
        return TransformerNet(self, norm, shape, classes)

    @property
    def pixels(self) -> int | None:
        """Pixels in a token; None for a row."""
        return self.chunk if self.patch is None else self.patch**2


class TransformerNet(nn.Module):
    """[B, C, H, W] -> [B, classes]; the layers are embed, block1.attention.query, ..., block1.mlp.out, ..., out."""

    positions: Tensor

    def __init__(self, spec: Transformer, norm: NormSpec, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.pixels, self.patch = spec.pixels, spec.patch
        tokens, features = token_sizes(shape, spec.pixels)
        self.embed = norm.wrap(nn.Linear(features, spec.width))
        self.register_buffer("positions", sinusoids(tokens, spec.width), persistent=False)
        self.dropout = Dropout(spec.dropout) if spec.dropout else None
        self.blocks = [f"block{i + 1}" for i in range(spec.depth)]
        for name in self.blocks:
            self.add_module(name, Block(spec, norm, tokens))
        self.norm = TokenNorm(norm, spec.width, tokens) if spec.order == "pre" else None
        self.out = classifier(spec.width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x, mask = read_tokens(x if self.patch is None else in_patches(x, self.patch), self.pixels)
        present = Present.of(mask)
        x = self.embed(x) + self.positions
        x = x if self.dropout is None else self.dropout(x)
        for name in self.blocks:
            x = self.get_submodule(name)(x, present)
        x = x if self.norm is None else self.norm(x, present)
        return self.out(mean_of_present(x, mask))


class Block(nn.Module):
    """Attention and an MLP, each a residual branch with a norm: x + f(norm(x)) or norm(x + f(x))."""

    def __init__(self, spec: Transformer, norm: NormSpec, tokens: int) -> None:
        super().__init__()
        self.norm_first = spec.order == "pre"
        self.norm1 = TokenNorm(norm, spec.width, tokens, ends_branch=True)
        self.attention = Attention(norm, spec.width, spec.heads)
        self.dropout1 = Dropout(spec.dropout) if spec.dropout else None
        self.norm2 = TokenNorm(norm, spec.width, tokens, ends_branch=True)
        self.mlp = mlp(norm, spec.width, spec.activation)
        self.dropout2 = Dropout(spec.dropout) if spec.dropout else None

    def forward(self, x: Tensor, present: Present) -> Tensor:
        branch = self.attention(self.norm1(x, present) if self.norm_first else x, present.mask)
        x = self.norm1.add(branch if self.dropout1 is None else self.dropout1(branch), x)
        x = x if self.norm_first else self.norm1(x, present)
        branch = self.mlp(self.norm2(x, present) if self.norm_first else x)
        x = self.norm2.add(branch if self.dropout2 is None else self.dropout2(branch), x)
        return x if self.norm_first else self.norm2(x, present)


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2.2), with biases."""

    def __init__(self, norm: NormSpec, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = norm.wrap(nn.Linear(width, width))
        self.key = norm.wrap(nn.Linear(width, width))
        self.value = norm.wrap(nn.Linear(width, width))
        self.out = norm.wrap(nn.Linear(width, width))

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in self.projections())
        return self.out(attend(q, k, v, present[:, None, None]).transpose(1, 2).flatten(2))

    def projections(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        return self.query, self.key, self.value


def mlp(norm: NormSpec, width: int, activation: ActivationName) -> nn.Sequential:
    """A hidden layer of four times the width, its activation, and a layer back to the width."""
    hidden = OrderedDict(weight=norm.wrap(nn.Linear(width, 4 * width)), act=ACTIVATIONS[activation]())
    return nn.Sequential(OrderedDict(hidden=nn.Sequential(hidden), out=norm.wrap(nn.Linear(4 * width, width))))


def sinusoids(tokens: int, width: int) -> Tensor:
    """The position vectors of Vaswani et al. 2017, section 3.5: [tokens, width]."""
    exponents = torch.arange(0, width, 2, dtype=torch.float64) / width
    angles = torch.arange(tokens, dtype=torch.float64)[:, None] / 10_000**exponents
    waves = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
    return waves[:, :width].to(torch.get_default_dtype())


def in_patches(x: Tensor, patch: int) -> Tensor:
    """Images [B, C, H, W] with the pixels of each patch side by side in reading order: [B, C, 1, H * W]."""
    patches = x.unflatten(3, (-1, patch)).unflatten(2, (-1, patch)).transpose(3, 4)  # [B, C, H/p, W/p, p, p]
    return patches.flatten(2).unsqueeze(2)


def mean_of_present(x: Tensor, present: Tensor) -> Tensor:
    """The mean of the tokens x [B, T, C] that are present [B, T]: [B, C]; 0 for an image without tokens."""
    weight = present.unsqueeze(-1).to(x.dtype)
    return (x * weight).sum(1) / weight.sum(1).clamp_min(1)
