"""Norms in the place of a module's own, compared with networks written by hand."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnstudy.models.swap import Rearranged, Shift, find_norms, swap_norms
from bnstudy.norms.base import Layout, NormSpec
from bnstudy.norms.batch import BatchNorm
from bnstudy.norms.group import GroupNorm, LayerNorm
from bnstudy.norms.none import NoNorm
from bnstudy.norms.rms import RMSNorm
from bnstudy.norms.skipinit import SkipInit
from bnstudy.norms.weight import WeightNorm, WeightNormConv2d, WeightNormLinear
from bnstudy.validation import ConfigError
from tests.plain_modules import (
    BatchNormReLU,
    Cnn,
    Encoder,
    Functional,
    HandWrittenNorm,
    OneNorm,
    PreActivation,
    Recurrent,
    SharedNorm,
    TiedBehindNorms,
    TokenBatchNorm,
    TwoNames,
    Unnormalized,
)

SHAPE = (1, 8, 8)
IMAGES = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0))


def swapped(model: nn.Module, norm: NormSpec, shape: tuple[int, int, int] = SHAPE) -> nn.Module:
    swap_norms(model, norm, shape, "model.target=mine.Net")
    return model


@dataclass(frozen=True)
class Recorder(NormSpec):
    """A norm that records the layout for which it is built, and subtracts the mean over channels."""

    def build(self, channels: int, layout: Layout) -> nn.Module:
        return Recorded(channels, layout)


class Recorded(nn.Module):
    def __init__(self, channels: int, layout: Layout) -> None:
        super().__init__()
        self.channels, self.layout, self.shapes = channels, layout, []

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(x.shape)
        return x - x.mean(-1 if self.layout == "tokens" else 1, keepdim=True)


def recorded(model: nn.Module) -> list[tuple[int, str, list[int]]]:
    model(IMAGES)
    return [(m.channels, m.layout, list(m.shapes[-1])) for m in model.modules() if isinstance(m, Recorded)]


def test_group_norms_take_the_place_of_batch_norms():
    model = Cnn()
    weights = dict(model.named_parameters())
    swapped(model, GroupNorm(groups=2))
    x = IMAGES
    for weight in (weights["conv1.weight"], weights["conv2.weight"]):
        x = F.relu(F.group_norm(F.conv2d(x, weight), 2))
    expected = F.linear(x.mean((2, 3)), weights["out.weight"], weights["out.bias"])
    torch.testing.assert_close(model(IMAGES), expected)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_without_norm_a_bias_stays_behind_layers_without_bias():
    model = swapped(Cnn(bias=False), NoNorm())
    assert [type(m) for m in (model.bn1, model.bn2)] == [Shift, Shift]
    assert torch.equal(model.bn1.bias, torch.zeros(8))
    with torch.no_grad():
        model.bn1.bias.copy_(torch.arange(8.0))
        expected = F.conv2d(IMAGES, model.conv1.weight, torch.arange(8.0))
        torch.testing.assert_close(model.bn1(model.conv1(IMAGES)), expected)


def test_without_norm_layers_with_a_bias_get_no_other():
    model = swapped(Cnn(bias=True), NoNorm())
    assert [type(m) for m in (model.bn1, model.bn2)] == [nn.Identity, nn.Identity]
    encoder = swapped(Encoder(), NoNorm())
    assert not any(isinstance(m, Shift | nn.LayerNorm) for m in encoder.modules())


def test_a_norm_without_shift_leaves_no_bias():
    model = Cnn()
    model.bn1 = nn.BatchNorm2d(8, affine=False)
    swapped(model, NoNorm())
    assert isinstance(model.bn1, nn.Identity)


def test_a_bias_stays_where_the_norm_is_behind_an_activation_or_a_sum_without_bias():
    model = swapped(PreActivation(), NoNorm())
    assert [type(m) for m in (model.bn1, model.bn2)] == [Shift, Shift]


def test_a_swap_leaves_all_other_state_as_it_was():
    model = Cnn()
    before = {name: t.clone() for name, t in model.state_dict().items() if "bn" not in name}
    swapped(model, BatchNorm())
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert int(after["bn1.num_batches_tracked"]) == 0
    assert model.training


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_layer_norms_over_tokens_get_tokens_image_by_image(batch_first, norm_first):
    model = swapped(Encoder(batch_first=batch_first, norm_first=norm_first), Recorder())
    assert recorded(model) == [(8, "tokens", [5, 8, 8])] * 4


def test_sequence_first_networks_compute_the_same():
    torch.manual_seed(0)
    first = Encoder()
    second = Encoder(batch_first=False)
    second.load_state_dict(first.state_dict())
    assert any(isinstance(m, Rearranged) for m in swapped(second, Recorder()).modules())
    torch.testing.assert_close(swapped(first, Recorder())(IMAGES), second(IMAGES))


def test_layouts_follow_from_the_inputs():
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps, self.whole = nn.BatchNorm2d(3), nn.LayerNorm([3, 8, 4])
            self.last, self.line = nn.LayerNorm(4), nn.BatchNorm1d(3)
            self.units, self.rms = nn.BatchNorm1d(96), nn.RMSNorm(96)
            self.conv, self.out = nn.Conv2d(1, 3, 1), nn.Linear(96, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.whole(self.maps(self.conv(x[..., :4])))
            x = self.line(self.last(x).flatten(2)).flatten(1)
            return self.out(self.rms(self.units(x)))

    assert recorded(swapped(Many(), Recorder())) == [
        *[(3, "maps", [5, 3, 8, 4])] * 2,
        (4, "tokens", [5, 24, 4]),
        (3, "maps", [5, 3, 32, 1]),
        *[(96, "units", [5, 96])] * 2,
    ]


def test_weight_norm_wraps_the_layers_in_front_of_norms():
    model = Cnn()
    plain = model.conv1.weight
    swapped(model, WeightNorm())
    assert model.conv1.weight is plain
    model.conv1.start_()
    torch.testing.assert_close(model.conv1(IMAGES), F.conv2d(IMAGES, plain))
    assert type(model.out) is nn.Linear
    assert isinstance(model.bn1, Shift)


@pytest.mark.parametrize(
    ("model", "norm", "reason"),
    [
        (PreActivation, WeightNorm(), "bn1 does not directly follow an nn.Linear or nn.Conv2d"),
        (Recurrent, WeightNorm(), "norm does not directly follow"),
        (Cnn, SkipInit(), "whose residual branches are not known"),
        (Unnormalized, LayerNorm(), "has no batch, layer, group, instance or RMS norm"),
        (Functional, NoNorm(), "calls F.layer_norm itself"),
    ],
)
def test_a_swap_that_means_nothing_is_refused(model, norm, reason):
    with pytest.raises(ConfigError, match=reason):
        swapped(model(), norm)


def test_a_network_without_norms_is_its_own_baseline():
    model = Unnormalized()
    names = [name for name, _ in model.named_modules()]
    assert [name for name, _ in swapped(model, NoNorm()).named_modules()] == names


def test_a_shared_norm_is_replaced_by_one_shared_norm():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 10)
            self.norm1 = self.norm2 = nn.LayerNorm(8)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.norm2(self.b(self.norm1(self.a(x.flatten(1))))))

    model = swapped(Shared(), BatchNorm())
    assert isinstance(model.norm1, nn.BatchNorm1d)
    assert model.norm1 is model.norm2


def test_all_norms_of_a_torchvision_network_are_found():
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.resnet18(num_classes=10)
    places = find_norms(model, (3, 32, 32), "resnet18")
    assert len(places) == 20
    assert not any(place.has_bias for place in places)
    swap_norms(model, GroupNorm(groups=8), (3, 32, 32), "resnet18")
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_a_bias_stays_in_front_of_norms_that_do_not_make_it_redundant():
    model = swapped(Cnn(bias=False), RMSNorm())
    shift, norm = model.bn1
    with torch.no_grad():
        shift.bias.copy_(torch.arange(8.0))
        z = F.conv2d(IMAGES, model.conv1.weight, torch.arange(8.0))
        torch.testing.assert_close(model.bn1(model.conv1(IMAGES)), norm(z))
    assert isinstance(swapped(Cnn(bias=False), BatchNorm()).bn1, nn.BatchNorm2d)


def test_a_weight_norm_replaces_all_layers_in_front_of_a_shared_norm():
    model = swapped(SharedNorm(), WeightNorm())
    assert [type(layer) for layer in (model.conv1, model.conv2)] == [WeightNormConv2d] * 2


def test_a_weight_norm_replaces_a_layer_under_all_its_names():
    model = swapped(TwoNames(), WeightNorm())
    assert type(model.hidden1) is WeightNormLinear
    assert model.layers[0] is model.hidden1


def test_a_weight_norm_of_layers_that_share_their_weight_is_refused():
    with pytest.raises(ConfigError, match="first and second share theirs"):
        swapped(TiedBehindNorms(), WeightNorm())


def test_a_norm_derived_from_torchs_may_have_its_channels_elsewhere():
    assert recorded(swapped(OneNorm(TokenBatchNorm(6), 6, rows=True), Recorder())) == [(6, "tokens", [5, 8, 6])]
    derived = type("Derived", (nn.LayerNorm,), {"__module__": __name__})(6)
    assert recorded(swapped(OneNorm(derived, 6), Recorder())) == [(6, "units", [5, 6])]


@pytest.mark.parametrize("norm", [TokenBatchNorm(8), nn.LayerNorm([8, 8])])
def test_a_norm_whose_channels_are_unknown_is_refused(norm):
    with pytest.raises(ConfigError, match="does not say which dimension are the channels"):
        swapped(OneNorm(norm, 8, rows=True), BatchNorm())


def test_a_norm_with_an_activation_inside_is_refused():
    with pytest.raises(ConfigError, match="it calls relu inside a norm, which cannot be replaced"):
        swapped(OneNorm(BatchNormReLU(6), 6), NoNorm())


@pytest.mark.parametrize("norm", [NoNorm(), BatchNorm()])
def test_a_norm_written_by_hand_is_refused(norm):
    both = nn.Sequential(nn.BatchNorm1d(6), HandWrittenNorm(6))
    with pytest.raises(ConfigError, match=r"norm\.1, a HandWrittenNorm, normalizes its input by code of its own"):
        swapped(OneNorm(both, 6), norm)
