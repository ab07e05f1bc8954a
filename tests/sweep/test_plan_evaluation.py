"""Networks whose answers in evaluation depend on the batch, without saying so."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from bnstudy.models.base import ModelSpec
from bnstudy.norms.base import NormSpec
from bnstudy.sweep.plan import check_evaluates_alone, try_network
from bnstudy.validation import ConfigError
from tests.conftest import spec_of

SHAPE, CLASSES = (1, 8, 8), 10


class Centred(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


@dataclass(frozen=True)
class Centering(NormSpec):
    def build(self, channels: int, layout: str) -> nn.Module:  # noqa: ARG002
        return Centred()


@dataclass(frozen=True)
class DeclaredCentering(Centering):
    evaluates_by_batch = True


@dataclass(frozen=True)
class OwnBatchNorm(ModelSpec):
    tracks: bool = False

    def build(self, norm: NormSpec, shape: tuple[int, int, int], classes: int) -> nn.Module:  # noqa: ARG002
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8, track_running_stats=self.tracks), nn.Linear(8, classes)
        )


@pytest.mark.parametrize("change", [{"norm": Centering()}, {"model": OwnBatchNorm()}])
def test_a_network_that_evaluates_by_batch_without_saying_so_is_refused(change):
    with pytest.raises(ConfigError, match="its answers in evaluation depend on the other images of the batch"):
        try_network(replace(spec_of("norm=none"), **change), SHAPE, CLASSES)


@pytest.mark.parametrize("change", [{"norm": DeclaredCentering()}, {"model": OwnBatchNorm(tracks=True)}])
def test_a_network_that_says_so_or_evaluates_each_image_alone_is_allowed(change):
    assert try_network(replace(spec_of("norm=none"), **change), SHAPE, CLASSES).params > 0


@pytest.mark.parametrize("model", ["mlp", "vgg", "resnet"])
@pytest.mark.parametrize("norm", ["none", "batch", "ghost", "noisy_batch", "layer", "group", "instance", "weight"])
@pytest.mark.parametrize("tracks", [True, False])
def test_each_norm_says_whether_it_evaluates_by_batch(model, norm, tracks):
    has_statistics = norm in ("batch", "ghost", "noisy_batch")
    if (model == "mlp" and norm == "instance") or not (tracks or has_statistics):
        return
    choice = ("norm.track_running_stats=false",) if not tracks else ()
    spec = spec_of(f"model={model}", f"norm={norm}", *choice, "model.dropout=0.5")
    assert spec.norm.evaluates_by_batch != tracks
    check_evaluates_alone(spec, SHAPE, CLASSES)
    network = spec.model.build(spec.norm, SHAPE, CLASSES).eval()
    x = torch.randn(4, *SHAPE)
    assert torch.allclose(network(x)[:2], network(x[:2]), atol=1e-4) == tracks
