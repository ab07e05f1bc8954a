from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnstudy.sweep import cost
from bnstudy.sweep.cost import (
    CACHE_BYTES,
    CONVOLUTION_ROWS,
    SECONDS_PER_OUTPUT,
    STACK_OPERATIONS,
    NetworkCost,
    choose_engine,
    choose_method,
    max_rows,
    measure_network,
    rows_per_stack,
    step_seconds,
)
from bnstudy.sweep.settings import Settings
from tests.conftest import spec_of

SMALL = NetworkCost(params=10_000, units=300, products=10_000, convolves=False)


def network(*overrides: str, size: int = 8) -> NetworkCost:
    spec = spec_of(*overrides)
    return measure_network(spec.model.build(spec.norm, (1, size, size), 10), torch.zeros(4, 1, size, size))


def test_measuring_a_network_does_not_import_the_compiler_of_torch():
    code = """
import sys, torch
from bnstudy.sweep.cost import measure_network
measure_network(torch.nn.Linear(4, 2), torch.zeros(3, 4))
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_dense_network_costs_the_products_of_its_matrices():
    sizes = [64, 48, 48, 10]
    found = network("model=mlp", "model.width=48", "model.depth=2", "norm=none")
    assert found.products == sum(a * b for a, b in pairwise(sizes))
    assert found.params == found.products + sum(sizes[1:])
    assert not found.convolves


def test_a_convolution_counts_at_each_position():
    """The first layer of a VGG on 8x8 images: 3x3 kernels at 64 places."""
    wide, narrow = (network("model=vgg", "norm=none", f"model.width={w}") for w in (16, 8))
    assert wide.convolves
    assert 2 < wide.products / narrow.products < 4  # the first layer doubles, the others quadruple


@pytest.mark.parametrize(
    ("runs", "most", "workers", "rows"),
    [(40, 32, 1, 20), (40, 32, 4, 10), (3, 32, 8, 2), (128, 32, 2, 32), (16, 11, 1, 8), (1, 32, 2, 2), (5, 32, 1, 5)],
)
def test_stacks_have_nearly_equal_sizes_and_each_worker_gets_as_many(runs, most, workers, rows):
    assert rows_per_stack(runs, most, workers) == rows


def test_a_stack_stays_within_the_cache():
    spec, big = spec_of("optim=adam"), replace(SMALL, params=2_000_000)
    assert max_rows(spec, SMALL, "cpu", 1) == 32
    assert choose_method([spec] * 33, SMALL, Settings(), "cpu", 1, 1).rows == 17
    rows = max_rows(spec, big, "cpu", 1)
    assert rows == max(2, CACHE_BYTES // (4 * (big.params * 4 + 3 * spec.batch_size * big.units)))


def test_a_stack_of_recurrent_networks_keeps_one_step_of_their_sequence_in_the_cache():
    spec, long = spec_of(), replace(SMALL, units=10**5)
    assert max_rows(spec, long, "cpu", 1) == 2
    assert max_rows(spec, replace(long, repeats=28.0), "cpu", 1) > 4


def test_each_output_of_a_convolution_takes_time():
    spec, few, many = spec_of(), replace(SMALL, convolves=True), replace(SMALL, convolves=True, units=10**5)
    added = step_seconds(spec, many) - step_seconds(spec, few)
    assert math.isclose(added, (many.units - few.units) * spec.batch_size * SECONDS_PER_OUTPUT)
    assert step_seconds(spec, replace(many, convolves=False)) == step_seconds(spec, SMALL)


def test_workers_share_the_memory(monkeypatch):
    spec, big = spec_of(), replace(SMALL, params=1_000_000)
    monkeypatch.setattr(cost, "memory_bytes", lambda device: 20 * 2**30)
    alone, shared = (max_rows(spec, big, "cuda", workers) for workers in (1, 4))
    assert alone > 100
    assert math.isclose(shared, alone / 4, abs_tol=1)


def test_the_steps_of_a_stack_are_compiled_unless_the_user_declines():
    specs = [spec_of(f"seed={seed}") for seed in range(32)]
    for by_hand, compiled in (("auto", True), (True, True), (False, False)):
        method = choose_method(specs, SMALL, Settings(compile=by_hand), "cpu", 1, 1)
        assert (method.engine, method.compiled) == ("stacked", compiled)


def test_norms_vary_only_if_their_numbers_differ():
    same = [spec_of(f"seed={seed}", "norm=batch") for seed in (0, 1)]
    different = [spec_of("norm=batch", f"norm.eps={eps}") for eps in (1e-5, 1e-3)]
    for specs, vary in ((same, False), (different, True)):
        assert choose_method(specs, SMALL, Settings(), "cpu", 1, 1).norms_vary is vary


def test_large_matrices_are_trained_one_after_another_on_a_cpu():
    spec = spec_of()
    fit = int(STACK_OPERATIONS / (6 * spec.batch_size))
    engines = [
        choose_engine([spec, spec], replace(SMALL, products=products), device)
        for products, device in ((fit, "cpu"), (fit + 1, "cpu"), (fit + 1, "cuda"))
    ]
    assert engines == ["stacked", "serial", "stacked"]


@pytest.mark.parametrize(
    ("size", "model", "engine"),
    [
        (8, "small/resnet", "stacked"),
        (8, "small/vgg", "stacked"),
        (8, "small/inception", "stacked"),
        (28, "resnet", "serial"),
        (28, "vgg", "serial"),
    ],
)
def test_small_convolutions_are_stacked_on_a_cpu_and_large_ones_are_not(size, model, engine):
    overrides = (f"model={model}", "batch_size=16")
    found = network(*overrides, size=size)
    specs = [spec_of(f"seed={seed}", *overrides) for seed in range(2)]
    assert choose_engine(specs, found, "cpu") == engine
    assert choose_engine(specs, found, "cuda") == "stacked"


def test_a_stack_of_convolutions_may_leave_the_cache():
    spec, big = spec_of(), replace(SMALL, units=10**5)
    assert max_rows(spec, big, "cpu", 1) == 2
    assert max_rows(spec, replace(big, convolves=True), "cpu", 1) == CONVOLUTION_ROWS


class Unrolled(nn.Module):
    """A recurrent network whose weights are plain parameters, used by functions once for each row."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.u = nn.Parameter(torch.zeros(16, 8)), nn.Parameter(torch.zeros(16, 16))

    def forward(self, x):
        h = x.new_zeros(len(x), 16)
        for row in x[:, 0].unbind(1):
            h = torch.tanh(F.linear(row, self.w) + F.linear(h, self.u))
        return h


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_each_use_of_a_weight_counts(device):
    with torch.device(device):
        found = measure_network(Unrolled(), torch.zeros(4, 1, 8, 8))
    assert found.products == 8 * (16 * 8 + 16 * 16)
    assert found.units == 8 * 2 * 16
    assert found.repeats == 8


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("cell", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
def test_a_recurrent_layer_counts_at_each_step(cell, gates, device):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = cell(8, 16, batch_first=True)

        def forward(self, x):
            return self.cell(x[:, 0])[0][:, -1]

    with torch.device(device):
        found = measure_network(Net(), torch.zeros(4, 1, 8, 8))
    assert found.products == 8 * gates * 16 * (8 + 16)


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "weight", "ghost"])
@pytest.mark.parametrize("model", ["mlp", "vgg", "resnet"])
def test_a_built_in_network_costs_the_products_of_its_layers(model, norm):
    """Counted at each layer from the shapes of its weight and its output."""
    spec, products = spec_of(f"model={model}", f"norm={norm}"), []
    net = spec.model.build(spec.norm, (1, 8, 8), 10)

    def note(module, _, out):
        products.append(out[0].numel() * module.weight[0].numel())

    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.register_forward_hook(note)
    found = measure_network(net, torch.zeros(16, 1, 8, 8))
    assert found.products == sum(products)
    assert found.repeats == 1


def test_of_a_recurrent_network_one_step_counts():
    specs = [spec_of(f"seed={seed}") for seed in range(32)]
    unrolled = replace(SMALL, products=int(20 * STACK_OPERATIONS / (6 * specs[0].batch_size)), repeats=28.0)
    assert choose_engine(specs, unrolled, "cpu") == "stacked"
    assert choose_engine(specs, replace(unrolled, repeats=1.0), "cpu") == "serial"
