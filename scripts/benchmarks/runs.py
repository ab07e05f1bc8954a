"""The runs and the images of the benchmarks."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bnstudy.config.build import build_run_spec
from bnstudy.data.dataset import Dataset, Split
from bnstudy.run import RunSpec
from bnstudy.store.files import conf_dir
from bnstudy.validation import ConfigError

CPU = torch.device("cpu")


def spec_of(*overrides: str) -> RunSpec:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return build_run_spec(OmegaConf.to_container(compose("config", list(overrides)), resolve=True))  # type: ignore[arg-type]


def random_dataset(name: str, shape: tuple[int, int, int], sizes: tuple[int, int, int]) -> Dataset:
    draw = torch.Generator().manual_seed(0)
    splits = [Split(torch.randn(n, *shape, generator=draw), torch.randint(10, (n,), generator=draw)) for n in sizes]
    return Dataset(name, 10, *splits, mean=(0.0,) * shape[0], std=(1.0,) * shape[0], checksum="random")


def mnist(spec: RunSpec) -> Dataset:
    try:
        with TemporaryDirectory() as cache:
            return spec.data.load(Path(cache), CPU)
    except ConfigError:
        return random_dataset("random 1x28x28", (1, 28, 28), (54_000, 6_000, 10_000))
