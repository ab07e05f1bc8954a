"""Modules that know nothing of bnstudy, for tests of `model=module` on images of 1x8x8."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Cnn(nn.Module):
    def __init__(self, width: int = 8, p: float = 0.0, bias: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, width, 3, bias=bias), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, bias=bias), nn.BatchNorm2d(width)
        self.out, self.p = nn.Linear(width, 10), p

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)))
        return self.out(F.dropout(x.mean((2, 3)), self.p, self.training))


class PreActivation(nn.Module):
    """A norm behind a sum, and one behind an activation in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3, bias=False), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn1, self.bn2, self.out = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.conv1(x))
        x = x + self.conv2(self.bn1(x))
        return self.out(self.bn2(x).mean((2, 3)))


class Encoder(nn.Module):
    """nn.TransformerEncoder on the rows of an image."""

    def __init__(
        self, p: float = 0.0, batch_first: bool = True, norm_first: bool = False, num_classes: int = 10
    ) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, p, batch_first=batch_first, norm_first=norm_first)
        self.pos = nn.Parameter(torch.randn(1, 8, 8) * 0.02)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out, self.batch_first = nn.Linear(8, num_classes), batch_first

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1, 2) + self.pos
        x = self.encoder(x) if self.batch_first else self.encoder(x.transpose(0, 1)).transpose(0, 1)
        return self.out(x.mean(1))


class Recurrent(nn.Module):
    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.gru, self.norm, self.out = nn.GRU(8, 6, 2, batch_first=True, dropout=p), nn.LayerNorm(6), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.gru(x.flatten(1, 2))[0][:, -1]))


class Lazy(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.LazyLinear(12), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(10))


class Functional(nn.Module):
    """Normalizes by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.norm, self.out = nn.Linear(64, 8), nn.LayerNorm(8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.layer_norm(self.norm(self.hidden(x.flatten(1))), (8,)))


class Unnormalized(nn.Sequential):
    def __init__(self, classes: int = 10) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, classes))


def pair() -> tuple[int, int]:
    return 1, 2


class SharedNorm(nn.Module):
    """One norm behind two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(n, 4, 3, padding=1, bias=False) for n in (1, 4))
        self.bn, self.out = nn.BatchNorm2d(4), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.bn(self.conv2(F.relu(self.bn(self.conv1(x)))))).mean((2, 3)))


class TwoNames(nn.Module):
    """Layers that are attributes and elements of a list. It keeps its features."""

    def __init__(self, shared: bool = False) -> None:
        super().__init__()
        self.hidden1, self.bn = nn.Linear(64, 12, bias=False), nn.BatchNorm1d(12)
        self.hidden2, self.out = nn.Linear(12, 12), nn.Linear(12, 10)
        self.layers = nn.ModuleList([self.hidden1, self.hidden2])
        if shared:
            self.again = nn.Linear(12, 12)
            self.again.weight = self.hidden2.weight
            self.layers.append(self.again)

    def forward(self, x: Tensor) -> Tensor:
        self.features = F.relu(self.bn(self.layers[0](x.flatten(1))))
        for layer in self.layers[1:]:
            self.features = F.relu(layer(self.features))
        return self.out(self.features)


class TiedBehindNorms(nn.Module):
    """A norm behind each of two layers that share their weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
        self.second.weight = self.first.weight
        self.bn1, self.bn2, self.out = nn.BatchNorm1d(64), nn.BatchNorm1d(64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.first(x.flatten(1))))
        return self.out(F.relu(self.bn2(self.second(x))))


class TokenBatchNorm(nn.BatchNorm1d):
    """Batch normalization of tokens [B, T, C]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class BatchNormReLU(nn.BatchNorm1d):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class HandWrittenNorm(nn.Module):
    def __init__(self, units: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(units))

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5) * self.scale


class OneNorm(nn.Module):
    """A linear layer of the rows of an image, or of all its pixels, and a norm behind it."""

    def __init__(self, norm: nn.Module, units: int, rows: bool = False) -> None:
        super().__init__()
        self.hidden, self.norm, self.out = nn.Linear(8 if rows else 64, units, bias=False), norm, nn.Linear(units, 10)
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.hidden(x.flatten(1, 2) if self.rows else x.flatten(1)))
        return self.out(x.mean(1) if self.rows else x)
