"""The stacked engine: R runs as one program, by `torch.func.vmap` over stacked parameters and buffers.

Horizontally fused training (Wang et al., MLSys 2021) for any network: models, losses and probes are written for one
run. A stack has at least two rows, so a single run is trained twice: torch multiplies a batch of one matrix in another
way, and a run's numbers must not depend on the runs beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_map

from bnstudy.data.batches import BatchStack
from bnstudy.data.dataset import Dataset
from bnstudy.models.functional import run_with
from bnstudy.norms.explicit import make_explicit, make_numbers_buffers
from bnstudy.optim import Hyper
from bnstudy.run import RunSpec
from bnstudy.train.build import build_model, trained_mask
from bnstudy.train.engine import Tensors, in_precision, needs_start, training_loss, undone
from bnstudy.train.probing import draw_probe_index
from bnstudy.train.program import NotRecorded, Program
from bnstudy.validation import stackable_numbers

MIN_ROWS = 2
"""The fewest rows of a stack."""


class StackedEngine:
    """Runs with equal `stack_key`. Parameters and slots are pieces [rows, p], one for each parameter.

    The first rows are the runs; the rows behind them repeat runs and are not measured.
    """

    name = "stacked"

    def __init__(
        self,
        specs: Sequence[RunSpec],
        dataset: Dataset,
        device: torch.device,
        free: bool = False,
        compiled: bool = True,
        successor_of: StackedEngine | None = None,
    ) -> None:
        """
        Args:
            free: whether the runs may differ in eps and momentum of their norms.
            compiled: whether steps are compiled to programs; their first step may raise NotRecorded.
            successor_of: an engine of such runs that is not needed any more, whose tensors and programs this one uses.

        Raises:
            ConfigError: specs and data do not fit together, or the runs cannot be stacked.
        """
        first = self.spec = specs[0]
        self.device, self.runs = device, len(specs)
        dataset = in_precision(dataset, first)
        dtype = dataset.train.x.dtype
        total = first.total_steps(len(dataset.train))
        self._rows = fill_rows(range(len(specs)), max(MIN_ROWS, len(specs)))

        models = build_models(specs, dataset)
        for model in dict.fromkeys(models):
            prepare_norms(model.to(device, dtype), free)
        self.model = models[0].train()
        self._shapes = {name: p.shape for name, p in self.model.named_parameters()}
        pieces = [[p.detach().flatten() for p in model.parameters()] for model in models]
        self.params = [self._stack(piece) for piece in zip(*pieces, strict=True)]
        self._trained = [i for i, trained in enumerate(trained_mask(first, self.model)) if trained]
        buffers = [dict(model.named_buffers()) for model in models]
        self._buffers = {name: self._stack([of_run[name] for of_run in buffers]) for name in buffers[0]}

        names = first.optim.slots()
        self.slots = [
            {name: torch.zeros_like(p) for name in names} if i in self._trained else {}
            for i, p in enumerate(self.params)
        ]
        self._numbers = {
            name: self._stack([torch.tensor([getattr(spec.optim, name)], dtype=dtype) for spec in specs])
            for name in stackable_numbers(first.optim)
        }
        self._rates = learning_rates(specs, total)[:, self._rows].to(device, dtype)
        self._counts = torch.arange(1, total + 2, dtype=torch.float64, device=device)

        seeds = [spec.seed for spec in specs]
        in_rows = [seeds[row] for row in self._rows]
        self._batches = BatchStack(dataset, first.data.augment, first.batch_size, in_rows, first.data.length)
        self._probe_index = self._stack([draw_probe_index(seed, dataset) for seed in seeds])
        self.start = [piece.clone() for piece in self.params] if needs_start(first) else []
        self.memory: dict[str, dict[str, Tensor]] = {}
        self._compiled = compiled
        self._programs: dict[bool, Program] = {}
        self._repeated: dict[str, tuple[int, Program | None]] = {}  # by name: how many rows, and None if not recorded

        if compiled and successor_of is not None:
            self._take_over(successor_of)

    def _take_over(self, other: StackedEngine) -> None:
        """Continue with the tensors of another engine, which its programs read and change, and with these programs."""
        own, values = ((e.params, e.slots, e._buffers, e._numbers) for e in (other, self))
        if tree_map(lambda t: t.shape, own) == tree_map(lambda t: t.shape, values):
            tree_map(lambda t, value: t.copy_(value), own, values)
            self.params, self.slots, self._buffers, self._numbers = own
            self._programs, self._repeated = other._programs, other._repeated

    def _stack(self, of_runs: Sequence[Tensor]) -> Tensor:
        return torch.stack([of_runs[row] for row in self._rows]).to(self.device)

    def step(self, t: int) -> Tensor:
        return self._make_step(t, all_grads=False)[0]

    def step_with_grads(self, t: int) -> tuple[Tensor, Tensors]:
        return self._make_step(t, all_grads=True)

    def _make_step(self, t: int, *, all_grads: bool) -> tuple[Tensor, Tensors]:
        inputs = self._rates[t], self._counts[t], *self.batch(t)
        every = all_grads or len(self._trained) == len(self.params)
        step = partial(self._step, every)
        if self._compiled and every not in self._programs:
            with undone(self):
                self._programs[every] = Program(step, *inputs)
        losses, grads = self._programs.get(every, step)(*inputs)
        return losses[: self.runs], grads

    def _step(self, all_grads: bool, lr: Tensor, count: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensors]:
        """Make a step; returns the losses [rows] and the gradients of the trained pieces, or of all."""
        chosen = range(len(self.params)) if all_grads else self._trained
        leaves = [p.detach().requires_grad_(i in chosen) for i, p in enumerate(self.params)]
        losses = vmap(self._loss)(self.by_name(leaves), self._buffers, x, y)
        found = torch.autograd.grad(losses.sum(), [leaves[i] for i in chosen], materialize_grads=True)
        grads = dict(zip(chosen, found, strict=True))
        optim = self.spec.optim
        hyper: Hyper = {**optim.hyper(), **self._numbers}
        for i in self._trained:
            optim.update_(self.params[i], grads[i], self.slots[i], lr, count, hyper)
        return losses.detach(), list(grads.values())

    def _loss(self, params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        """The loss of one run."""
        tensors = {**params, **buffers}
        loss = training_loss(self.spec, lambda images: run_with(self.model, tensors, images), x, y)
        for name, buffer in buffers.items():
            if tensors[name] is not buffer and tensors[name].shape == buffer.shape:  # a module assigned a new one
                buffer.copy_(tensors[name].detach())
        return loss

    def batch(self, t: int) -> tuple[Tensor, Tensor]:
        return self._batches.gather(*self._batches.select(t))

    def learning_rate(self, t: int) -> Tensor:
        return self._rates[t, :, 0]

    def by_name(self, pieces: Tensors) -> dict[str, Tensor]:
        shapes = self._shapes.items()
        return {name: piece.view(-1, *shape) for (name, shape), piece in zip(shapes, pieces, strict=True)}

    def buffers(self) -> dict[str, Tensor]:
        return self._buffers

    @property
    def probe_index(self) -> Tensor:
        return self._probe_index[: self._measured_rows]

    def map(self, function: Callable[..., Any], *tensors: Any) -> Any:
        return vmap(function)(*tree_map(lambda t: t[: self._measured_rows], tensors))

    def repeat(self, name: str, function: Callable[[], Any]) -> Any:
        rows, program = self._repeated.get(name, (0, None))
        if self._compiled and rows < self._measured_rows:
            with suppress(NotRecorded):  # a network may do in evaluation what it does not do in a step
                program = Program(function)
            self._repeated[name] = self._measured_rows, program
        return function() if program is None else program()

    @property
    def _measured_rows(self) -> int:
        return max(MIN_ROWS, self.runs)

    def keep(self, runs: Sequence[int]) -> None:
        """Fewer rows need another program, and to record one takes as long as many steps: rows stay, and repeat runs,
        until half of them are left."""
        as_before = 2 * len(runs) > len(self._rows)
        rows = fill_rows(runs, len(self._rows) if as_before else max(MIN_ROWS, len(runs)))
        of_programs = [self.params, self.slots, self._buffers, self._numbers]
        if as_before:
            tree_map(lambda t: t.copy_(t[rows]), of_programs)
        else:
            self.params, self.slots, self._buffers, self._numbers = tree_map(lambda t: t[rows], of_programs)
            self._programs.clear()
            self._repeated.clear()
        others = [self.start, self.memory, self._probe_index]  # what probes remember may have fewer rows
        self.start, self.memory, self._probe_index = tree_map(lambda t: t[rows], others)
        self.runs, self._rows = len(runs), rows
        self._rates = self._rates[:, rows]
        self._batches.keep(rows)

    def state(self, run: int = 0) -> dict[str, Any]:
        trained = [self.slots[i] for i in self._trained]
        return {
            "params": torch.cat([piece[run] for piece in self.params]),
            "slots": {name: torch.cat([own[name][run] for own in trained]) for name in self.spec.optim.slots()},
            "buffers": tree_map(lambda t: t[run].clone(), self._buffers),
            "memory": tree_map(lambda t: t[run].clone(), self.memory),
        }

    def load(self, states: Sequence[Mapping[str, Any]]) -> None:
        in_rows = [states[row] for row in self._rows]
        copy_pieces_(self.params, [state["params"] for state in in_rows])
        trained = [self.slots[i] for i in self._trained]
        for name in self.spec.optim.slots():
            copy_pieces_([own[name] for own in trained], [state["slots"][name] for state in in_rows])
        for name, buffer in self._buffers.items():
            if all(name in state["buffers"] for state in in_rows):  # eps and momentum exist in written-out norms only
                buffer.copy_(torch.stack([state["buffers"][name] for state in in_rows]))
        self.memory |= tree_map(lambda *of_rows: torch.stack(of_rows), *(state["memory"] for state in in_rows))


def fill_rows(runs: Sequence[int], rows: int) -> list[int]:
    """The run in each row: first the runs, then some of them again."""
    return [runs[row % len(runs)] for row in range(rows)]


def build_models(specs: Sequence[RunSpec], dataset: Dataset) -> list[nn.Module]:
    """The networks of the runs. Those of one seed, with the same network and initialization, are one."""
    built: dict[tuple[int | str | None, ...], nn.Module] = {}
    models = []
    for spec in specs:
        drawn_by = spec.seed, *(spec.texts.get(part) for part in ("model", "norm", "init"))
        if drawn_by not in built:
            built[drawn_by] = build_model(spec, dataset)
        models.append(built[drawn_by])
    return models


def prepare_norms(model: nn.Module, free: bool) -> None:
    """Replace torch's norms: under vmap its batch norm puts the units of all runs in one row, where a run's bits depend
    on the other runs, and on a CPU it is several times as slow."""
    if free:
        make_numbers_buffers(model)
    else:
        make_explicit(model)


def learning_rates(specs: Sequence[RunSpec], total: int) -> Tensor:
    """The learning rates [total + 1, R, 1] of all steps, in float64. After the last step, that of the last."""
    factors = {
        schedule: [schedule.factor(min(t, total - 1), total) for t in range(total + 1)]
        for schedule in {spec.schedule for spec in specs}
    }
    rates = [spec.lr_at_batch_size * torch.tensor(factors[spec.schedule], dtype=torch.float64) for spec in specs]
    return torch.stack(rates, 1)[:, :, None]


def copy_pieces_(pieces: Tensors, flat: Sequence[Tensor]) -> None:
    """Copy one flat tensor for each row into pieces [rows, p]."""
    sizes = [piece.shape[1] for piece in pieces]
    for piece, value in zip(pieces, torch.stack(list(flat)).split(sizes, 1), strict=True):
        piece.copy_(value)
