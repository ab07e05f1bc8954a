"""Snapshots of a tiny network."""

from __future__ import annotations

import pytest
import torch

from bnstudy.data.dataset import Dataset
from bnstudy.models.tracing import look
from bnstudy.probes.base import Snapshot
from bnstudy.probes.network import Network, copy_for_probes
from bnstudy.run import RunSpec
from bnstudy.train.build import build_model
from bnstudy.train.probing import draw_probe_index
from tests.conftest import spec_of

TINY = ("model=mlp", "model.depth=2", "model.width=5", "batch_size=8", "init.gain=1.5")


def snapshot_of(spec: RunSpec, dataset: Dataset, double: bool = True, **others: object) -> Snapshot:
    """The snapshot before training with the first images as batch; in float64, or else float32."""
    dtype = torch.float64 if double else torch.float32
    model = build_model(spec, dataset).to(dtype)
    x = dataset.train.x[: spec.batch_size].to(dtype)
    quiet = copy_for_probes(model)
    seen = look(quiet, x[:4])
    network = Network(
        quiet,
        seen,
        spec.loss,
        dataset,
        dict(model.named_buffers()),
        (x, dataset.train.y[: spec.batch_size]),
        draw_probe_index(spec.seed, dataset),
        torch.tensor(spec.lr, dtype=dtype),
        spec.evaluation.batch_size,
    )
    params = {name: p.detach() for name, p in model.named_parameters()}
    return Snapshot(params=params, seen=seen, network=network, memory={}, **others)


def changed(snapshot: Snapshot, **parts: object) -> Snapshot:
    """The snapshot with some parts replaced."""
    return Snapshot(**{**vars(snapshot), **parts})


@pytest.fixture
def tiny(digits: Dataset) -> Snapshot:
    return snapshot_of(spec_of(*TINY, "norm=batch"), digits)
