"""Helpers of the tests of probes: snapshots of a tiny network, and a comparison of the engines."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bnstudy.data.dataset import Dataset
from bnstudy.probes.base import ProbeSpec, Snapshot
from bnstudy.probes.network import Network, copy_for_probes
from bnstudy.run import RunSpec
from bnstudy.train.build import build_model
from bnstudy.train.loop import start_serial, start_stacked
from bnstudy.train.probing import draw_probe_index, layer_weights
from tests.conftest import CPU, spec_of

TINY = ("model=mlp", "model.depth=2", "model.width=5", "batch_size=8", "init.gain=1.5")


def snapshot_of(spec: RunSpec, dataset: Dataset, double: bool = True, **others: object) -> Snapshot:
    """The snapshot before training with the first images as batch; in float64, or else float32."""
    dtype = torch.float64 if double else torch.float32
    model = build_model(spec, dataset).to(dtype)
    x = dataset.train.x[: spec.batch_size].to(dtype)
    network = Network(
        copy_for_probes(model),
        spec.loss,
        dataset,
        dict(model.named_buffers()),
        (x, dataset.train.y[: spec.batch_size]),
        draw_probe_index(spec.seed, dataset),
        torch.tensor(spec.lr, dtype=dtype),
    )
    params = {name: p.detach() for name, p in model.named_parameters()}
    return Snapshot(params=params, layers=layer_weights(model), network=network, memory={}, **others)


def changed(snapshot: Snapshot, **parts: object) -> Snapshot:
    """The snapshot with some parts replaced."""
    return Snapshot(**{**vars(snapshot), **parts})


def engines_agree(probe: ProbeSpec, digits: Dataset, *overrides: str, rtol: float = 1e-4, atol: float = 1e-6) -> None:
    """Assert that serial and stacked runs measure the same, and that they measure something."""
    spec = replace(spec_of(*TINY, "steps=6", *overrides), probe={"mine": probe})
    specs = [replace(spec, seed=seed, lr=lr) for seed, lr in ((0, 0.1), (1, 0.05), (2, 0.2))]
    alone = []
    for one in specs:
        start_serial(one, digits, CPU).train(lambda _, outcome: alone.append(outcome))
    together = {}
    start_stacked(specs, digits, CPU).train(lambda one, outcome: together.update({one.seed: outcome}))
    for one, serial in zip(specs, alone, strict=True):
        a, b = (outcome.metrics.to_pandas() for outcome in (serial, together[one.seed]))
        keys = ["step", "split", "metric", "layer"]
        assert a[keys].astype(str).equals(b[keys].astype(str))
        own = ~a["metric"].isin(["loss", "accuracy", "lr"])
        assert own.any()
        torch.testing.assert_close(
            torch.tensor(a["value"][own].to_numpy()),
            torch.tensor(b["value"][own].to_numpy()),
            rtol=rtol,
            atol=atol,
            equal_nan=True,
        )


@pytest.fixture
def tiny(digits: Dataset) -> Snapshot:
    return snapshot_of(spec_of(*TINY, "norm=batch"), digits)
