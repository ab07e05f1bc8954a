"""Four ways to train one run: a plain loop, bnstudy's runner, a loop over a DataLoader, and Lightning."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from benchmarks.runs import CPU
from bnstudy.data.dataset import Dataset
from bnstudy.run import RunSpec
from bnstudy.train.build import build_model
from bnstudy.train.loop import start_serial
from bnstudy.train.record import Outcome

Loop = Callable[[RunSpec, Dataset], float]
"""Trains a whole run and returns the seconds of its steps."""


def bare(spec: RunSpec, data: Dataset) -> float:
    model, n, size = build_model(spec, data).train(), len(data.train), spec.batch_size
    optimizer = torch.optim.SGD(model.parameters(), lr=spec.lr)
    begin = time.perf_counter()
    for step in range(spec.total_steps(n)):
        batch = step % (n // size)
        if batch == 0:
            order = torch.randperm(n)
        index = order[batch * size : (batch + 1) * size]
        make_step(model, optimizer, data.train.x[index], data.train.y[index])
    return time.perf_counter() - begin


def make_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()
    optimizer.step()


def runner(spec: RunSpec, data: Dataset) -> float:
    begin = time.perf_counter()
    outcomes: list[Outcome] = []
    start_serial(spec, data, CPU).train(lambda left: outcomes.extend(outcome for _, outcome in left))
    return time.perf_counter() - begin - outcomes[0].seconds["evaluation"]


class Images(TorchDataset[tuple[Tensor, int]]):
    """uint8 images with torchvision transforms, one at a time, as in the usual training script."""

    def __init__(self, data: Dataset) -> None:
        from torchvision import transforms

        channels = data.shape[0]
        pixels = (data.train.x * 50 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        self.pixels = np.ascontiguousarray(pixels[..., 0] if channels == 1 else pixels)
        self.labels = data.train.y.tolist()
        half = (0.5,) * channels
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(half, half)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def loader(spec: RunSpec, data: Dataset) -> DataLoader[tuple[Tensor, int]]:
    return DataLoader(Images(data), batch_size=spec.batch_size, shuffle=True, drop_last=True)


def dataloader(spec: RunSpec, data: Dataset) -> float:
    model, batches = build_model(spec, data).train(), loader(spec, data)
    optimizer = torch.optim.SGD(model.parameters(), lr=spec.lr)
    total, step, begin = spec.total_steps(len(data.train)), 0, time.perf_counter()
    while True:
        for x, y in batches:
            make_step(model, optimizer, x, y)
            step += 1
            if step == total:
                return time.perf_counter() - begin


def lightning(spec: RunSpec, data: Dataset) -> float:
    import lightning as L

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = build_model(spec, data)

        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            loss = F.cross_entropy(self.model(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=spec.lr)

    with warnings.catch_warnings(), TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        trainer = L.Trainer(
            max_steps=spec.total_steps(len(data.train)),
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            default_root_dir=folder,
        )
        begin = time.perf_counter()
        trainer.fit(Module(), loader(spec, data))
        return time.perf_counter() - begin


def available_loops() -> dict[str, Loop]:
    found: dict[str, Loop] = {"bare": bare, "runner": runner, "dataloader": dataloader}
    try:
        import lightning as _  # noqa: F401
    except ImportError:
        return found
    return {**found, "lightning": lightning}
