"""What things cost, as ratios measured in one call. Each subcommand prints a table and writes JSON.

    python scripts/benchmark.py runner [data.root=DIR] [--steps 1000] [--repeats 3] [--tasks mlp resnet] [--json FILE]

`runner` compares, on the MLP 784-100-100-100-10 with batch normalization and batches of 60, and on a ResNet-8 on
32x32 pictures with batches of 64, in alternation:

  bare        a plain PyTorch loop over in-memory tensors, nothing recorded
  runner      bnstudy's runner with its default recording (evaluation apart: the others do none)
  dataloader  a plain loop over a DataLoader with torchvision transforms
  lightning   the same under Lightning, where it is installed: pip install bnstudy[lightning]

The MLP takes MNIST from `data.root` (random pictures where it is missing), the ResNet random pictures.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line sets it, for all contenders

import numpy as np
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from bnstudy.config import conf_dir, run_spec
from bnstudy.data import Dataset, Split
from bnstudy.spec import ConfigError, RunSpec
from bnstudy.train.serial import SerialRun
from bnstudy.train.state import build_model

CPU = torch.device("cpu")
Loop = Callable[[RunSpec, Dataset], float]
"""Trains the whole run and returns the seconds that its steps took."""


def spec_of(*overrides: str) -> RunSpec:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return run_spec(OmegaConf.to_container(compose("config", list(overrides)), resolve=True))  # type: ignore[arg-type]


def random_dataset(name: str, shape: tuple[int, int, int], sizes: tuple[int, int, int]) -> Dataset:
    draw = torch.Generator().manual_seed(0)
    splits = [Split(torch.randn(n, *shape, generator=draw), torch.randint(10, (n,), generator=draw)) for n in sizes]
    return Dataset(name, 10, *splits, mean=(0.0,) * shape[0], std=(1.0,) * shape[0], checksum="")


def mnist(spec: RunSpec) -> Dataset:
    try:
        with TemporaryDirectory() as cache:
            return spec.data.load(Path(cache), CPU)
    except ConfigError:
        return random_dataset("random 1x28x28", (1, 28, 28), (54_000, 6_000, 10_000))


# ------------------------------------------------------------------------------------------------ the contenders


def bare(spec: RunSpec, data: Dataset) -> float:
    model, n, size = build_model(spec, data).train(), len(data.train), spec.batch_size
    optimizer = torch.optim.SGD(model.parameters(), lr=spec.lr)
    begin = time.perf_counter()
    for step in range(spec.total_steps(n)):
        batch = step % (n // size)
        if batch == 0:
            order = torch.randperm(n)
        index = order[batch * size : (batch + 1) * size]
        update(model, optimizer, data.train.x[index], data.train.y[index])
    return time.perf_counter() - begin


def update(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()
    optimizer.step()


def runner(spec: RunSpec, data: Dataset) -> float:
    begin = time.perf_counter()
    outcome = SerialRun(spec, data, CPU).train()
    return time.perf_counter() - begin - outcome.seconds["evaluation"]


class Pictures(TorchDataset[tuple[Tensor, int]]):
    """uint8 pictures through torchvision transforms, one at a time, as the usual training script has them."""

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
    return DataLoader(Pictures(data), batch_size=spec.batch_size, shuffle=True, drop_last=True)


def dataloader(spec: RunSpec, data: Dataset) -> float:
    model, batches = build_model(spec, data).train(), loader(spec, data)
    optimizer = torch.optim.SGD(model.parameters(), lr=spec.lr)
    total, step, begin = spec.total_steps(len(data.train)), 0, time.perf_counter()
    while True:
        for x, y in batches:
            update(model, optimizer, x, y)
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


def contenders() -> dict[str, Loop]:
    found: dict[str, Loop] = {"bare": bare, "runner": runner, "dataloader": dataloader}
    try:
        import lightning as _  # noqa: F401
    except ImportError:
        return found
    return {**found, "lightning": lightning}


# ---------------------------------------------------------------------------------------------------- measuring


def alternating(loops: dict[str, Loop], spec: RunSpec, data: Dataset, repeats: int) -> dict[str, list[float]]:
    """Milliseconds per step of each loop, in turn after a short warm-up, so that drifts of the machine hit all."""
    for loop in loops.values():
        loop(replace(spec, steps=min(10, spec.total_steps(len(data.train)))), data)
    steps = spec.total_steps(len(data.train))
    taken: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(repeats):
        for name, loop in loops.items():
            taken[name].append(1000 * loop(spec, data) / steps)
    return taken


def report(task: str, taken: dict[str, list[float]]) -> dict[str, object]:
    """Print a row a loop; the ratio is the median over repeats of loop / bare within one repeat."""
    print(f"\n{task}\n{'':12}{'ms/step':>9}{'min':>9}{'max':>9}{'x bare':>9}")
    rows = {}
    for name, times in taken.items():
        ratio = statistics.median(a / b for a, b in zip(times, taken["bare"], strict=True))
        rows[name] = {"ms_per_step": times, "median": statistics.median(times), "ratio_to_bare": ratio}
        print(f"{name:12}{statistics.median(times):9.3f}{min(times):9.3f}{max(times):9.3f}{ratio:9.2f}")
    return {"task": task, "loops": rows}


def mlp_task(options: argparse.Namespace) -> tuple[str, RunSpec, Dataset]:
    spec = spec_of(
        "model=mlp", "model.width=100", "data=mnist", options.root, "batch_size=60", f"steps={options.steps}"
    )
    data = mnist(spec)
    return f"MLP 784-100-100-100-10, batch norm, batch 60, {data.name}, {spec.steps} steps", spec, data


def resnet_task(options: argparse.Namespace) -> tuple[str, RunSpec, Dataset]:
    spec = spec_of("model=resnet", "data=cifar10", "batch_size=64", f"steps={options.steps}")
    data = random_dataset("random 3x32x32", (3, 32, 32), (4_096, 512, 512))
    return f"ResNet-8, batch norm, batch 64, {data.name}, {spec.steps} steps", spec, data


TASKS = {"mlp": mlp_task, "resnet": resnet_task}


def measure_runner(options: argparse.Namespace) -> list[dict[str, object]]:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.repeats} repeats")
    reports = []
    for name in options.tasks:
        task, spec, data = TASKS[name](options)
        reports.append(report(task, alternating(contenders(), spec, data, options.repeats)))
    return reports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("runner", help="the runner against plain loops")
    command.add_argument("root", nargs="?", default="data.root=data", help="data.root=DIR with MNIST in it")
    command.add_argument("--steps", type=int, default=1000, help="updates of each run")
    command.add_argument("--repeats", type=int, default=3)
    command.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    command.add_argument("--threads", type=int, help="CPU threads; torch's choice if not given")
    command.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    tasks = measure_runner(options)
    if options.json:
        figures = {"torch": torch.__version__, "threads": torch.get_num_threads(), "tasks": tasks}
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
