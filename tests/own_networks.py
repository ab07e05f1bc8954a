"""Networks that know nothing of bnstudy, and beside each a second forward pass that returns its pre-activations."""

from __future__ import annotations

import math

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


class Recurrent(nn.Module):
    """torch's GRU over the rows of an image, a norm, and a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.norm = nn.GRU(8, 6, batch_first=True), nn.LayerNorm(6)
        self.hidden, self.out = nn.Linear(6, 7), nn.Linear(7, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.hidden(self.norm(self.gru(x.squeeze(1))[0][:, -1]))))

    def by_hand(self, x: Tensor) -> tuple[Tensor, Z]:
        g = self.gru
        h = x.new_zeros(len(x), 6)
        for row in x.squeeze(1).unbind(1):
            of_x = (row @ g.weight_ih_l0.T + g.bias_ih_l0).chunk(3, 1)
            of_h = (h @ g.weight_hh_l0.T + g.bias_hh_l0).chunk(3, 1)
            reset, update = (1 / (1 + (-a - b).exp()) for a, b in zip(of_x[:2], of_h[:2], strict=True))
            h = (1 - update) * (of_x[2] + reset * of_h[2]).tanh() + update * h
        z = self.hidden(self.norm(h))
        return self.out(z * (z > 0)), {"hidden": z}


class Encoder(nn.Module):
    """torch's Transformer over the rows of an image, with a learned position."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(6, 2, 9, dropout=0.0, batch_first=True)
        self.embed, self.position = nn.Linear(8, 6), nn.Parameter(0.1 * torch.randn(8, 6))
        self.encoder, self.out = nn.TransformerEncoder(layer, 2), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.encoder(self.embed(x.squeeze(1)) + self.position).mean(1))

    def by_hand(self, x: Tensor) -> tuple[Tensor, Z]:
        tokens, z = self.embed(x.squeeze(1)) + self.position, {}
        for number, layer in enumerate(self.encoder.layers):
            attention = layer.self_attn
            q, k, v = (tokens @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, 2)
            heads = []
            for head in (slice(0, 3), slice(3, 6)):
                shares = (q[..., head] @ k[..., head].mT / math.sqrt(3)).exp()
                heads.append(shares / shares.sum(2, keepdim=True) @ v[..., head])
            tokens = layer.norm1(tokens + attention.out_proj(torch.cat(heads, 2)))
            inner = z[f"encoder.layers.{number}.linear1"] = layer.linear1(tokens)
            tokens = layer.norm2(tokens + layer.linear2(inner * (inner > 0)))
        return self.out(tokens.mean(1)), z


class Lazy(nn.Module):
    """A lazy layer, and a layer that is used twice with the same activation."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.first, self.again, self.out = nn.ReLU(), nn.LazyLinear(9), nn.Linear(9, 9), nn.LazyLinear(10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x.flatten(1)))
        return self.out(self.act(self.again(self.act(self.again(x)))))

    def by_hand(self, x: Tensor) -> tuple[Tensor, Z]:
        z1 = self.first(x.flatten(1))
        z2 = self.again(z1 * (z1 > 0))
        z3 = self.again(z2 * (z2 > 0))
        return self.out(z3 * (z3 > 0)), {"first": z1, "again": z2, "again.2": z3}


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
