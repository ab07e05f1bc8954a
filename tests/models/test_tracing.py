from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnstudy.claims.metrics import OUTPUT
from bnstudy.models.activations import Call, LinearActivation, Taps, kind_of
from bnstudy.models.tracing import Seen, look
from bnstudy.validation import ConfigError
from tests.conftest import spec_of

X = torch.randn(3, 1, 8, 8)


class Net(nn.Module):
    """A network of these parts and this forward pass."""

    def __init__(self, forward: Callable[[Net, Tensor], Tensor], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)
        self.of = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.of(self, x)


def calls(net: nn.Module) -> list[tuple[str, str, int, int]]:
    return [(call.name, call.kind, call.channel, call.samples) for call in look(net, X).activations]


KINDS: list[tuple[Callable[[Tensor], Tensor], str]] = [
    (torch.relu, "relu"),
    (F.relu, "relu"),
    (lambda z: z.relu(), "relu"),
    (lambda z: z.clone().relu_(), "relu"),
    (lambda z: F.relu(input=z), "relu"),
    (lambda z: z.clamp(min=0), "relu"),
    (lambda z: torch.clamp(z, 0.0), "relu"),
    (lambda z: z.clamp_min(0), "relu"),
    (lambda z: F.threshold(z, 0, 0), "relu"),
    (F.relu6, "relu6"),
    (nn.ReLU6(), "relu6"),
    (lambda z: z.clamp(0, 6), "relu6"),
    (nn.Hardtanh(), "hardtanh"),
    (F.leaky_relu, "leaky_relu"),
    (F.elu, "elu"),
    (nn.SELU(), "selu"),
    (nn.CELU(), "celu"),
    (nn.GELU(), "gelu"),
    (F.silu, "silu"),
    (nn.Mish(), "mish"),
    (nn.Softplus(), "softplus"),
    (nn.Hardswish(), "hardswish"),
    (nn.Hardsigmoid(), "hardsigmoid"),
    (torch.tanh, "tanh"),
    (F.sigmoid, "sigmoid"),
    (torch.special.expit, "sigmoid"),
    (LinearActivation(), "linear"),
]


@pytest.mark.parametrize(("activation", "kind"), KINDS)
def test_an_activation_is_seen_as_module_function_and_method(activation, kind):
    net = Net(lambda net, x: net.out(activation(net.fc(x.flatten(1)))), fc=nn.Linear(64, 6), out=nn.Linear(6, 10))
    assert calls(net) == [("fc", kind, 1, 0)]


def test_joined_channels_have_the_name_of_the_deepest_layer_if_it_is_computed_from_the_others():
    def dense(net: Net, x: Tensor) -> Tensor:
        x = net.first(x)
        x = torch.cat([x, net.second(x.relu())], 1)
        x = torch.cat([x, net.third(x.relu())], 1)
        return net.out(x.relu().mean((2, 3)))

    parts = {"first": nn.Conv2d(1, 2, 3), "second": nn.Conv2d(2, 3, 1), "third": nn.Conv2d(5, 4, 1)}
    net = Net(dense, **parts, out=nn.Linear(9, 10))
    assert [name for name, *_ in calls(net)] == ["first", "second", "third"]


def test_branches_that_are_joined_have_the_name_of_the_first():
    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.stem(x).relu()
        return net.out(torch.cat([net.one(x), net.two(x)], 1).relu().mean((2, 3)))

    net = Net(
        forward,
        stem=nn.Conv2d(1, 2, 3),
        one=nn.Conv2d(2, 3, 1),
        two=nn.Conv2d(2, 4, 3, padding=1),
        out=nn.Linear(7, 10),
    )
    assert [name for name, *_ in calls(net)] == ["stem", "one"]


def test_functions_that_are_no_activations_of_units_are_not_seen():
    def forward(net: Net, x: Tensor) -> Tensor:
        z = net.fc(x.flatten(1).clamp(-1, 1))
        length = z.norm(dim=1, keepdim=True).clamp(min=1e-6)
        return z / length * F.softplus(net.scale) * torch.ones(6).clamp(min=0)

    assert calls(Net(forward, fc=nn.Linear(64, 6), scale=torch.ones(()))) == []


LAYOUTS: dict[str, tuple[Net, tuple[str, str, int, int]]] = {
    "tokens": (
        Net(lambda net, x: net.fc(x[:, 0]).relu().mean(1), fc=nn.Linear(8, 6)),
        ("fc", "relu", 2, 0),
    ),
    "tokens first": (
        Net(lambda net, x: net.fc(x[:, 0].transpose(0, 1)).relu().mean(0), fc=nn.Linear(8, 6)),
        ("fc", "relu", 2, 1),
    ),
    "channels moved to the front": (
        Net(lambda net, x: net.fc(x[:, 0]).transpose(1, 2).relu().mean(2), fc=nn.Linear(8, 6)),
        ("fc", "relu", 1, 0),
    ),
    "maps with channels last": (
        Net(lambda net, x: net.conv(x).permute(0, 2, 3, 1).relu().mean((1, 2)), conv=nn.Conv2d(1, 6, 3)),
        ("conv", "relu", 3, 0),
    ),
    "mean of maps": (
        Net(lambda net, x: net.conv(x).mean((2, 3)).relu(), conv=nn.Conv2d(1, 6, 3)),
        ("conv", "relu", 1, 0),
    ),
    "signals": (
        Net(lambda net, x: net.conv(x[:, 0]).relu().mean(2), conv=nn.Conv1d(8, 6, 3)),
        ("conv", "relu", 1, 0),
    ),
    "folded tokens": (
        Net(lambda net, x: net.fc(x.reshape(-1, 8)).relu().view(-1, 8, 6).mean(1), fc=nn.Linear(8, 6)),
        ("fc", "relu", 1, 0),
    ),
    "a matrix": (
        Net(lambda net, x: (x.flatten(1) @ net.w.t() + net.b).relu(), w=torch.randn(6, 64), b=torch.randn(6)),
        ("w", "relu", 1, 0),
    ),
    "a matrix on the left": (
        Net(lambda net, x: (net.w @ x[:, 0]).relu().mean(2), w=torch.randn(6, 8)),
        ("w", "relu", 1, 0),
    ),
    "einsum": (
        Net(lambda net, x: torch.einsum("bti,io->bot", x[:, 0], net.w).relu().mean(2), w=torch.randn(8, 6)),
        ("w", "relu", 1, 0),
    ),
    "a function of the weight": (
        Net(lambda net, x: F.linear(x.flatten(1), net.w / net.w.norm() * net.g).relu(), w=torch.randn(6, 64),
            g=torch.ones(6, 1)),
        ("w", "relu", 1, 0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_channels_of_an_activation_are_those_of_the_layer_before_it(layout):
    net, call = LAYOUTS[layout]
    assert calls(net) == [call]


def test_calls_behind_one_layer_get_numbers_that_no_layer_has():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Tanh(), nn.Sequential(), nn.Linear(6, 10))
    assert [name for name, *_ in calls(net)] == ["1", "1.2"]
    nested = Net(lambda net, x: getattr(net, "1").out(net.first(x)).relu().tanh())
    inner = nn.Sequential()
    inner.add_module("2", nn.Linear(5, 10))
    nested.first = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    setattr(nested, "1", Net(lambda net, x: net(x), out=inner))
    assert [name for name, *_ in calls(nested)] == ["1.out.2", "1.out.2.2"]


class HandWrittenBatchNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt() + self.beta


def test_a_layer_counts_as_normalized_if_norms_and_nothing_else_follow_it_directly():
    fc = {
        name: nn.Linear(6, 6)
        for name in ("torch", "function", "own", "behind_relu", "behind_sum", "branched", "twice", "none")
    }

    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.bn(net.torch(net.first(x.flatten(1))))
        x = F.layer_norm(net.function(x), (6,))
        x = net.mine(net.own(x))
        x = net.bn(net.behind_relu(x).relu())
        x = net.bn(net.behind_sum(x) + x)
        x = net.branched(x)
        x = net.bn(net.twice(x + net.bn(x)))
        return net.none(net.twice(x).relu())

    net = Net(forward, first=nn.Linear(64, 6), bn=nn.BatchNorm1d(6), mine=HandWrittenBatchNorm(6), **fc)
    assert look(net, X).normalized == {"torch", "function", "own"}


def test_weights_are_in_order_of_use_and_unused_ones_are_named():
    parts = {"out": nn.Linear(6, 10), "unused": nn.Linear(3, 3), "fc": nn.Linear(64, 6), "table": torch.randn(4, 6)}
    seen = look(Net(lambda net, x: net.out(net.fc(x.flatten(1)).relu() + net.table[0]), **parts), X)
    assert seen.weights == {"fc": "fc.weight", "table": "table", "out": "out.weight"}
    used = ("fc.weight", "fc.bias", "table", "out.weight", "out.bias")
    assert seen.parameters == (*used, "unused.weight", "unused.bias")
    [sentence] = seen.unseen
    assert "never uses unused.weight, unused.bias" in sentence


def test_only_the_output_has_the_name_by_which_claims_leave_it_out():
    assert Seen.output == OUTPUT
    assert [name for name, *_ in calls(Net(lambda net, x: net.out(x.flatten(1)).tanh(), out=nn.Linear(64, 9)))] == [
        "out.2"
    ]


def test_other_activations_in_evaluation_are_said():
    def forward(net: Net, x: Tensor) -> Tensor:
        z = net.fc(x.flatten(1))
        return net.out(z.relu() if net.training else z.tanh())

    seen = look(Net(forward, fc=nn.Linear(64, 6), out=nn.Linear(6, 10)), X)
    assert [call.kind for call in seen.calls("training")] == ["relu"]
    assert [call.kind for call in seen.calls("running")] == [call.kind for call in seen.calls("batch")] == ["tanh"]
    assert any("In evaluation the network calls other activations" in sentence for sentence in seen.unseen)


@pytest.mark.parametrize(
    ("forward", "returned"),
    [
        (lambda net, x: (net.fc(x.flatten(1)), x), "a tuple"),
        (lambda net, x: net.fc(x[:, 0, :, :1].repeat(1, 1, 64)), r"a tensor \[3, 8, 10\]"),
        (lambda net, x: net.fc(x.flatten(1)).mean(0, keepdim=True), r"a tensor \[1, 10\]"),
    ],
)
def test_outputs_that_are_no_logits_are_refused(forward, returned):
    with pytest.raises(ConfigError, match=f"for 3 images it returns {returned}"):
        look(Net(forward, fc=nn.Linear(64, 10)), X)


def test_looking_changes_neither_the_network_nor_torchs_random_generator():
    net = Net(lambda net, x: F.dropout(net.bn(net.fc(x.flatten(1)))), fc=nn.Linear(64, 10), bn=nn.BatchNorm1d(10))
    net.bn.eval()
    state, before = torch.get_rng_state(), {name: value.clone() for name, value in net.state_dict().items()}
    look(net, X)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
    assert not net.bn.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_a_network_that_calls_other_activations_than_when_looked_at_is_refused():
    taken = [torch.relu, torch.relu]
    net = Net(lambda net, x: net.fc(x.flatten(1)) if not taken else taken[0](net.fc(x.flatten(1))), fc=nn.Linear(64, 9))
    found = look(net, X).activations
    for other in ([torch.tanh], [], [lambda z: z.relu().relu()]):
        taken[:] = other
        with (
            pytest.raises(ConfigError, match="does not call the same activations in each forward pass"),
            Taps(found, lambda *_: None),
        ):
            net(X)


def test_samples_come_first_and_channels_second_when_a_call_is_read():
    x = torch.randn(8, 3, 5)
    assert torch.equal(Call("fc", "relu", channel=2, samples=1).arrange(x), x.permute(1, 2, 0))
    assert torch.equal(Call("fc", "relu", channel=0).arrange(x[0, 0]), x[0, 0][:, None])


def test_a_clamp_to_other_limits_is_no_activation():
    assert kind_of(torch.clamp, (X, 0.5), {}) is None
    assert kind_of(torch.clamp, (X, None, 0), {}) is None


@pytest.mark.parametrize("model", ["mlp", "vgg", "resnet"])
@pytest.mark.parametrize("norm", ["none", "batch", "weight", "noisy_batch"])
def test_built_in_networks_use_their_parameters_in_the_order_of_their_definition(model, norm):
    spec = spec_of(f"model={model}", f"norm={norm}")
    net = spec.model.build(spec.norm, (1, 8, 8), 10)
    names, seen = [name for name, _ in net.named_parameters()], look(net, X)
    for weight in seen.weights.values():
        assert set(names[: names.index(weight)]) == set(seen.parameters[: seen.parameters.index(weight)])
    assert not seen.unseen
