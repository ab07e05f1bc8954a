"""Measurements from Python, without training."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bnstudy.config.build import build_spec
from bnstudy.data.base import DataSpec
from bnstudy.data.dataset import Dataset, Split
from bnstudy.inits import InitSpec
from bnstudy.losses import CrossEntropy, LossSpec
from bnstudy.models.base import ModelSpec
from bnstudy.models.tracing import check_output
from bnstudy.norms.none import NoNorm
from bnstudy.optim import SGD, Constant
from bnstudy.probes.base import ProbeSpec
from bnstudy.run import Evaluation, RunSpec
from bnstudy.store.files import conf_dir
from bnstudy.train.probing import PROBE_BATCH, Probing
from bnstudy.train.record import Record, Stopwatch
from bnstudy.train.serial import SerialEngine
from bnstudy.validation import ConfigError, nearest
from bnstudy.when import At

logger = logging.getLogger("bnstudy")

Probes = str | ProbeSpec | Sequence[ProbeSpec] | Mapping[str, ProbeSpec]

END = 1
"""The step at which is measured: after the only one, so that running statistics are those of the module."""


def measure(
    module: nn.Module,
    x: Any,
    y: Any,
    probes: Probes | None = None,
    *,
    loss: str | LossSpec = "cross_entropy",
    lr: float = 0.1,
) -> pd.DataFrame:
    """Measure what probes see in a module on one batch, without training. The module does not change.

    The batch is the training batch, the probe batch (of at most 1,024) and the held-out images of the probes.
    Evaluation uses the module's running statistics as they are. Noise, such as that of `nn.Dropout`, is the same at
    each call. As nothing was measured before, metrics of a change since an earlier measurement are 0 or left out.

    Args:
        module: maps x to outputs [B, classes].
        x, y: a batch [B, ...] of at least 2 inputs, and labels [B] or, for loss="mse", targets [B, classes].
        probes: the name of an option of the group `probe`, such as "full", or probes; by default "standard".
        loss: the name of an option of the group `loss`, or a loss.
        lr: the learning rate of the step of plain SGD that probes of an update measure.

    Returns:
        A row for each metric and layer, as in metrics.parquet: `metric`, `layer`, `value`. `attrs["cannot_see"]` has
        sentences on what the probes cannot see.

    Raises:
        ConfigError: an argument is not allowed, or a probe cannot measure this module.
    """
    if not isinstance(module, nn.Module):
        raise ConfigError(f"measure() is not allowed with a {type(module).__name__}: it must be an nn.Module.")
    loss = named_option("loss", loss) if isinstance(loss, str) else loss
    with fixed_state(module):
        model, x, y = prepare(module, x, y)
        fresh = list(fresh_statistics(model))
        batch = Split(x, y)
        classes = check_fit(model, batch, loss)
        dataset = Dataset("batch", classes, batch, batch, batch, (), (), checksum="none")
        run = RunSpec(
            model=ModelSpec(),
            norm=NoNorm(),
            init=InitSpec(),
            data=DataSpec(),
            optim=SGD(),
            schedule=Constant(),
            loss=loss,
            probe={name: replace(probe, when=At((END,))) for name, probe in read_probes(probes).items()},
            evaluation=Evaluation(),
            lr=lr,
            batch_size=len(batch),
            seed=0,
            steps=END,
        )
        watch = Stopwatch(x.device, 1)
        record = Record(END, 1, 1, x.device)
        with refusing("The probes cannot measure this module"):
            probing = Probing(run, OneBatch(run, dataset, model), dataset, END, watch)
            probing.measure_now(END, record)
    unseen = [*probing.seen.unseen, *fresh]
    for sentence in unseen:
        logger.warning("%s", sentence)
    rows = [(metric, layer) for _, _, metric, layer in record.rows]
    frame = pd.DataFrame(rows, columns=["metric", "layer"], dtype=str).assign(value=record.values[:, 0])
    frame.attrs["cannot_see"] = unseen
    return frame


class OneBatch(SerialEngine):
    """A network as it is, whose every batch is the training set."""

    def __init__(self, spec: RunSpec, dataset: Dataset, model: nn.Module) -> None:
        self._begin(spec, dataset, dataset.train.x.device, model)
        self.batch = lambda _: (dataset.train.x, dataset.train.y)
        self.probe_index = torch.arange(len(dataset.train), device=self.device)[:PROBE_BATCH]


@contextmanager
def fixed_state(module: nn.Module) -> Iterator[None]:
    """Draw random numbers with the seed 0, and compute attention step by step; restore the state afterwards."""
    devices = {p.device for p in module.parameters() if p.is_cuda}
    is_fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # in evaluation it would compute a layer in one call
    try:
        with torch.random.fork_rng([*devices]):
            torch.manual_seed(0)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(is_fast)


def prepare(module: nn.Module, x: Any, y: Any) -> tuple[nn.Module, Tensor, Tensor]:
    """A copy of the module, with the parameters that lazy modules lack, and the batch on its device."""
    x, y = (torch.as_tensor(values).detach() for values in (x, y))
    if x.ndim < 2 or len(x) < 2:
        raise ConfigError(f"x has the shape {list(x.shape)}: it must be a batch [B, ...] of at least 2 inputs.")
    if y.ndim == 0 or len(x) != len(y):
        length = "a single number" if y.ndim == 0 else f"{len(y)} labels"
        raise ConfigError(f"x has {len(x)} inputs and y {length}: their numbers must be equal.")
    with refusing(f"A {type(module).__name__} cannot be copied"):
        model = copy.deepcopy(module)
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError(f"A {type(module).__name__} without parameters to train is not allowed.")
    device = next(model.parameters()).device
    x, y = x.to(device), y.to(device)
    if any(is_lazy(p) for p in model.parameters()):
        run_once(model, x)
    kinds = {str(p.dtype).removeprefix("torch.") for p in model.parameters()}
    if len(kinds) > 1 or not kinds <= {"float32", "float64"}:
        given = " and ".join(sorted(kinds))
        raise ConfigError(f"Parameters in {given} are not allowed: all must be float32, or all float64.")
    return model, x, y if y.is_floating_point() else y.long()


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Raise an error of the user's code, which can be of any kind, as ConfigError."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise ConfigError(f"{what}: {type(error).__name__}: {lines[0]}") from error


@torch.no_grad()
def run_once(model: nn.Module, x: Tensor) -> Any:
    """The outputs in evaluation mode, which changes no running statistics."""
    with refusing(f"The module fails for x of shape {list(x.shape)} and {x.dtype}"):
        return model.eval()(x)


def check_fit(model: nn.Module, batch: Split, loss: LossSpec) -> int:
    """The number of classes.

    Raises:
        ConfigError: the outputs are not [B, classes], or labels or targets do not fit them.
    """
    out, y = run_once(model, batch.x), batch.y
    check_output(out, len(batch))
    classes = out.shape[1]
    if y.is_floating_point():
        if isinstance(loss, CrossEntropy) or y.shape != out.shape:
            raise ConfigError(
                f"y of shape {list(y.shape)} and {y.dtype} is not allowed: it must be whole numbers [{len(y)}], or for "
                f'loss="mse" numbers {list(out.shape)}.'
            )
    elif y.ndim != 1 or int(y.min()) < 0 or int(y.max()) >= classes:
        given = f"has the shape {list(y.shape)}" if y.ndim != 1 else f"has labels from {y.min()} to {y.max()}"
        raise ConfigError(f"y {given}: it must be {len(y)} labels from 0 to {classes - 1}, the outputs of the module.")
    return int(classes)


def read_probes(probes: Probes | None) -> dict[str, ProbeSpec]:
    """Probes by name.

    Raises:
        ConfigError: something is not a probe, or not the name of an option.
    """
    if isinstance(probes, str) or probes is None:
        probes = named_option("probe", probes or "standard")
    if isinstance(probes, ProbeSpec):
        probes = [probes]
    if not isinstance(probes, Mapping):
        probes = {f"{i} {type(probe).__name__}": probe for i, probe in enumerate(probes, 1)}
    for probe in probes.values():
        if not isinstance(probe, ProbeSpec):
            raise ConfigError(f'probes={probe!r} is not allowed: it must be a name such as "full", or probes.')
    return dict(probes)


def named_option(group: str, name: str) -> Any:
    """What an option of a config group describes."""
    options = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
    if name not in options:
        known = ", ".join(options) + (nearest(name, options) or ".")
        raise ConfigError(f"{group}={name} is not allowed: it must be one of {known}")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = OmegaConf.to_container(compose("config", [f"{group}={name}"])[group], resolve=True)
    return build_spec(config, group)


def fresh_statistics(model: nn.Module) -> Iterator[str]:
    """A sentence if batch norms have seen no batch."""
    counts = {path: getattr(module, "num_batches_tracked", None) for path, module in model.named_modules()}
    fresh = [path for path, count in counts.items() if isinstance(count, Tensor) and count == 0]
    if fresh:
        yield (
            f"The running statistics of {fresh[0]} are of no batch: probes in evaluation mode, such as of dead units, "
            'see their initial values. DeadUnits(statistics="batch") uses those of the batch.'
        )
