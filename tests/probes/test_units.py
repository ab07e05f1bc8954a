from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bnstudy.models.tracing import look
from bnstudy.probes.base import Snapshot
from bnstudy.probes.network import copy_for_probes
from bnstudy.probes.units import DeadUnits
from bnstudy.train.probing import draw_probe_index, observe
from bnstudy.when import At
from tests.conftest import spec_of
from tests.probes.conftest import TINY
from tests.train.helpers import ENGINES, train_one, values_by_step

Measured = dict[str, dict[str, float]]


def snapshot(model: nn.Module, x: Tensor, memory: Mapping[str, Tensor]) -> Snapshot:
    quiet, params, buffers = copy_for_probes(model), dict(model.named_parameters()), dict(model.named_buffers())
    seen = look(quiet, x[:4])
    observed = observe(quiet, seen, "running", {"dead": DeadUnits()}, params, buffers, x)["dead"]
    return Snapshot(params={}, seen=seen, observed=observed, memory=memory)


def measure_after(model: nn.Module, x: Tensor, *changes: Callable[[nn.Module], None]) -> list[Measured]:
    """Measure after each of the changes to the model."""
    memory: Mapping[str, Tensor] = {}
    found = []
    for change in changes:
        with torch.no_grad():
            change(model)
        state = snapshot(model, x, memory)
        measured, memory = DeadUnits().measure(state), DeadUnits().remember(state)
        found.append({metric: {k: v.item() for k, v in of.items()} for metric, of in measured.items()})
    return found


def dead_shares(model: nn.Module, x: Tensor) -> dict[str, float]:
    return measure_after(model, x, lambda _: None)[0].get("dead_share", {})


def network(*overrides: str, shape=(1, 8, 8)) -> nn.Module:
    spec = spec_of("norm=none", *overrides)
    return spec.model.build(spec.norm, shape, 10)


def dead_are(*units: int, layer: str = "hidden1") -> Callable[[nn.Module], None]:
    """A change that makes exactly these units of a layer dead."""

    def change(model: nn.Module) -> None:
        bias = model.get_submodule(layer).weight.bias
        bias.fill_(100)
        bias[list(units)] = -1e4

    return change


def test_dead_units_are_counted():
    model = network("model=mlp", "model.depth=2", "model.width=10")
    with torch.no_grad():
        model.hidden1.weight.bias.fill_(100)  # none is dead ...
        model.hidden1.weight.bias[:3] = -100  # ... except these
        model.hidden2.weight.bias.fill_(1000)
        model.hidden2.weight.bias[:5] = -1000
    assert dead_shares(model, torch.rand(50, 1, 8, 8)) == pytest.approx({"": 0.4, "hidden1": 0.3, "hidden2": 0.5})


@pytest.mark.parametrize("model", ["mlp", "vgg", "resnet"])
def test_dead_shares_agree_with_a_loop_over_units_samples_and_positions(model, digits):
    torch.manual_seed(0)
    net, x = network(f"model={model}", "init.gain=2"), digits.train.x[:12]
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith("bias"):
                p.uniform_(-1.5, 0.5)
    outputs: dict[str, torch.Tensor] = {}
    for name, module in net.named_modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda _m, _i, out, name=name: outputs.__setitem__(name, out))
    shares = dead_shares(net, x)
    slow = [
        sum(all(v == 0 for v in out[:, unit].flatten().tolist()) for unit in range(out.shape[1])) / out.shape[1]
        for out in outputs.values()
    ]
    assert list(shares.values())[1:] == pytest.approx(slow)
    assert 0 < shares[""] < 1


@pytest.mark.parametrize("activation", ["leaky_relu", "gelu", "tanh", "sigmoid"])
def test_only_relu_has_dead_units(activation):
    assert measure_after(
        network("model=mlp", f"model.activation={activation}"), torch.rand(5, 1, 8, 8), lambda _: None
    ) == [{}]


def test_at_the_first_measurement_dead_units_are_born_dead_and_none_has_died():
    model = network("model=mlp", "model.depth=1", "model.width=10")
    [first] = measure_after(model, torch.rand(20, 1, 8, 8), dead_are(0, 1, 2))
    assert first["dead_share"] == first["born_dead_share"] == pytest.approx({"": 0.3, "hidden1": 0.3})
    assert first["died_share"] == first["revived_share"] == {"": 0, "hidden1": 0}


def test_died_and_revived_shares_follow_the_units():
    model = network("model=mlp", "model.depth=1", "model.width=10")
    dead = [(0, 1), (1, 2, 3, 4), (4,), (0, 4), ()]
    found = measure_after(model, torch.rand(20, 1, 8, 8), *(dead_are(*units) for units in dead))

    def over_time(metric: str) -> list[float]:
        return [measured[metric]["hidden1"] for measured in found]

    assert over_time("dead_share") == pytest.approx([0.2, 0.4, 0.1, 0.2, 0])
    assert over_time("born_dead_share") == pytest.approx([0.2] * 5)
    assert over_time("died_share") == pytest.approx([0, 0.3, 0.1, 0.1, 0])  # {}, {2, 3, 4}, {4}, {4}, {}
    assert over_time("revived_share") == pytest.approx([0, 0.1, 0.4, 0.3, 0.5])  # {}, {0}, {0-3}, {1-3}, {0-4}


def test_the_share_of_the_network_is_over_all_units(digits):
    model = network("model=vgg", "model.width=0.03125")  # layers of 2, 2, 4, 4, 8 and 8 channels
    _, second = measure_after(model, digits.train.x[:20], dead_are(layer="conv6"), dead_are(0, 1, 2, layer="conv6"))
    assert second["died_share"]["conv6"] == pytest.approx(3 / 8)
    assert second["died_share"][""] == pytest.approx(3 / 28)


@pytest.mark.parametrize("gain", [1, 1e-3, 1e3])
def test_a_network_with_a_dead_layer_is_dead(gain, digits):
    model = network("model=mlp", "model.depth=3", "model.width=6")
    with torch.no_grad():
        model.out.weight.weight.mul_(gain)
        model.out.weight.bias.uniform_(-gain, gain)
    alive, almost, dead = measure_after(
        model, digits.train.x[:300], *(dead_are(*units, layer="hidden2") for units in ((), range(5), range(6)))
    )
    assert [found["network_dead"] for found in (alive, almost, dead)] == [{"": 0}, {"": 0}, {"": 1}]


def test_a_shortcut_keeps_a_network_with_a_dead_layer_alive(digits):
    model = network("model=resnet", "model.width=4")
    [found] = measure_after(model, digits.train.x[:20], dead_are(*range(8), layer="stage2.block1.conv1"))
    assert found["dead_share"]["stage2.block1.conv1"] == 1
    assert found["network_dead"] == {"": 0}


@pytest.mark.parametrize("engine", ENGINES)
def test_born_dead_units_are_those_dead_at_the_first_measurement_of_a_run(engine, digits):
    spec = replace(spec_of(*TINY, "norm=none", "lr=0.5"), probe={"dead": DeadUnits(when=At((2, 5, 20)))})
    metrics = train_one(ENGINES[engine]([spec], digits)).metrics
    dead, born = (values_by_step(metrics, "", metric) for metric in ("dead_share", "born_dead_share"))
    assert list(dead) == [2, 5, 20]
    assert set(born.values()) == {dead[2]}


def test_observing_does_not_change_the_model(digits):
    model = network("model=mlp").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    dead_shares(model, digits.train.x[:10])
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_the_probe_batch_depends_only_on_the_seed(digits):
    chosen = draw_probe_index(4, digits)
    assert torch.equal(chosen, draw_probe_index(4, digits))
    assert len(chosen.unique()) == 1024
    assert not torch.equal(chosen, draw_probe_index(5, digits))
