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
