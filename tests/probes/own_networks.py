"""Networks that know nothing of bnstudy, and beside each a second forward pass that returns its pre-activations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18

Z = dict[str, Tensor]


class Functional(nn.Module):
    """A convolution and a dense layer with norms of its own, and F.relu."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.fc1, self.ln, self.fc2 = nn.Linear(6 * 4, 12), nn.LayerNorm(12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn(self.conv(x))), 4)
        return self.fc2(torch.relu(self.ln(self.fc1(x.flatten(1)))))

    def by_hand(self, x: Tensor) -> tuple[Tensor, Z]:
        z1 = self.bn(self.conv(x))
        z2 = self.ln(self.fc1(F.max_pool2d(z1.clamp_min(0), 4).flatten(1)))
        return self.fc2(z2 * (z2 > 0)), {"conv": z1, "fc1": z2}


class SharedActivation(nn.Module):
    """One activation over layers of unequal widths; the classifier is defined first."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.act = nn.Linear(5, 10), nn.ReLU()
        self.hidden1, self.hidden2 = nn.Linear(64, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.hidden2(self.act(self.hidden1(x.flatten(1))))))

    def by_hand(self, x: Tensor) -> tuple[Tensor, Z]:
        z1 = self.hidden1(x.flatten(1))
        z2 = self.hidden2(z1 * (z1 > 0))
        return self.head(z2 * (z2 > 0)), {"hidden1": z1, "hidden2": z2}


class Thrice(nn.Module):
    """One layer and one activation, used three times."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.act, self.out = nn.Linear(64, 12), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1))
        for _ in range(3):
            x = self.act(self.again(x))
        return self.out(x)

    def by_hand(self, x: Tensor) -> tuple[Tensor, Z]:
        z1 = self.again(self.first(x.flatten(1)))
        z2 = self.again(z1 * (z1 > 0))
        z3 = self.again(z2 * (z2 > 0))
        return self.out(z3 * (z3 > 0)), {"again": z1, "again.2": z2, "again.3": z3}


class InPlace(nn.Module):
    """ReLUs that overwrite their inputs, as function, statement and module, the last with ReLU6."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(64, 12), nn.Linear(12, 9), nn.Linear(9, 7), nn.Linear(7, 6)
        self.six, self.out = nn.ReLU6(inplace=True), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x.flatten(1)), inplace=True)
        x = self.b(x)
        x.relu_()
        return self.out(self.six(self.d(self.c(x).clamp_(min=0))))

    def by_hand(self, x: Tensor) -> tuple[Tensor, Z]:
        za = self.a(x.flatten(1))
        zb = self.b(za * (za > 0))
        zc = self.c(zb * (zb > 0))
        zd = self.d(zc * (zc > 0))
        return self.out(zd.clamp(0, 6)), {"a": za, "b": zb, "c": zc, "d": zd}


class Tokens(nn.Module):
    """Rows of an image as tokens [B, T, C], then [T, B, C]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.out = nn.Linear(8, 6), nn.Linear(6, 5), nn.Linear(5, 10)
        self.position = nn.Parameter(0.3 * torch.randn(8, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.squeeze(1)) + self.position
        x = x.relu().transpose(0, 1)
        return self.out(self.mix(x).relu().mean(0))

    def by_hand(self, x: Tensor) -> tuple[Tensor, Z]:
        z1 = self.embed(x[:, 0]) + self.position
        z2 = self.mix(z1 * (z1 > 0))
        return self.out((z2 * (z2 > 0)).mean(1)), {"embed": z1, "mix": z2}


class Residual(nn.Module):
    """ReLUs behind additions, with the shortcut as the first or the second summand, in place or not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act, self.out = nn.Conv2d(1, 6, 3), nn.ReLU(inplace=True), nn.Linear(6, 10)
        self.one, self.two, self.skip = (nn.Conv2d(6, 6, size, padding=size // 2) for size in (3, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        out = self.one(x)
        out += self.skip(x)
        x = self.act(out)
        return self.out(F.relu(x + self.two(x)).mean((2, 3)))

    def by_hand(self, x: Tensor) -> tuple[Tensor, Z]:
        z = self.stem(x)
        h = z * (z > 0)
        z1 = self.one(h) + self.skip(h)
        h = z1 * (z1 > 0)
        z2 = self.two(h) + h
        return self.out((z2 * (z2 > 0)).mean((2, 3))), {"stem": z, "one": z1, "two": z2}


class ResNet18(nn.Module):
    """That of torchvision, for images of 32x32 made of smaller ones."""

    def __init__(self) -> None:
        super().__init__()
        self.net = resnet18(num_classes=10)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.repeat(1, 3, 4, 4))

    def by_hand(self, x: Tensor) -> tuple[Tensor, Z]:
        net, z = self.net, {}
        z["net.conv1"] = net.bn1(net.conv1(x.repeat(1, 3, 4, 4)))
        x = net.maxpool(z["net.conv1"].clamp_min(0))
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            for number, block in enumerate(getattr(net, stage)):
                name = f"net.{stage}.{number}"
                z[f"{name}.conv1"] = block.bn1(block.conv1(x))
                shortcut = x if block.downsample is None else block.downsample(x)
                z[f"{name}.conv2"] = block.bn2(block.conv2(z[f"{name}.conv1"].clamp_min(0))) + shortcut
                x = z[f"{name}.conv2"].clamp_min(0)
        return net.fc(x.mean((2, 3))), z


SMALL = (Functional, SharedActivation, Thrice, InPlace, Tokens, Residual)
NETWORKS = (*SMALL, ResNet18)
