"""The stacked engine: R runs as one program, by `torch.func.vmap` over stacked parameters and buffers.

Horizontally fused training (Wang et al., MLSys 2021) for any network: models, losses and probes are written for one
run. A stack never has fewer than two rows, a lone run being trained twice, since torch multiplies a batch of one
matrix in another way: so a run's numbers do not depend on which others it is trained with.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from bnstudy.data.batches import BatchStack
from bnstudy.data.dataset import Dataset
from bnstudy.norms.explicit import make_explicit, make_numbers_buffers
from bnstudy.optim import OptimSpec
from bnstudy.probes.base import ProbeSpec
from bnstudy.probes.network import Mode, in_parts
from bnstudy.run import RunSpec
from bnstudy.train.compiled import Program
from bnstudy.train.loop import Engine, Probed, Tensors
from bnstudy.train.state import are_trained, build_model, joined, mean_scores, observe, probe_choice, score
from bnstudy.validation import numbers_per_run

SMALLEST = 2
"""Rows of a stack."""


class StackedRun(Engine):
    """Runs with equal `stack_key` in training. Parameters and slots are pieces [rows, p], one a parameter.

    The first rows are those of `specs`, in order; the others stand in for runs that have left and are not looked at.
    """

    name = "stacked"

    def __init__(
        self,
        specs: Sequence[RunSpec],
        dataset: Dataset,
        device: torch.device,
        program: Program | None = None,
        free: bool = False,
    ) -> None:
        """
        program: a compiled step, which fixes the number of rows; without one the step is executed as it stands.
        free: whether the runs may differ in eps and momentum of their norms.

        Raises:
            ConfigError: specs and data do not fit, or the runs cannot be stacked.
        """
        super().__init__(specs, dataset, device)
        self._first = specs[0]
        self._program = program
        self._rows = self._filled(range(len(specs)))
        models = [build_model(spec, dataset) for spec in specs]
        # On a CPU a batch norm of bf16 has no way through vmap: torch then asks for statistics in bf16 too.
        free = free or (self._first.precision == "bf16" and device.type == "cpu")
        for model in models:
            if free:
                make_numbers_buffers(model)
            elif program is not None or mixes_runs(model):
                # Of torch's own norms under vmap a compiler makes what is several times as slow.
                make_explicit(model)
        self.model = models[0].to(device).train()
        self._shapes = {name: p.shape for name, p in self.model.named_parameters()}
        params = [[p.detach().flatten() for p in model.parameters()] for model in models]
        self.params = [self._stacked(piece) for piece in zip(*params, strict=True)]
        if any(probe.needs_start for probe in self._first.probe.values()):
            self.start = [piece.clone() for piece in self.params]
        self._trained = [i for i, own in enumerate(are_trained(self._first, self.model)) if own]
        names = self._first.optim.slots()
        self.slots = [
            {name: torch.zeros_like(p) for name in names} if i in self._trained else {}
            for i, p in enumerate(self.params)
        ]
        buffers = [dict(model.named_buffers()) for model in models]
        self._buffer = {name: self._stacked([own[name] for own in buffers]) for name in buffers[0]}
        self._numbers = {
            name: self._stacked([torch.tensor([getattr(spec.optim, name)]) for spec in specs])
            for name in numbers_per_run(self._first.optim)
        }
        self._rates = self._rate_table()
        self._counts = torch.arange(1, self.total + 2, dtype=torch.float64, device=self.device)
        seeds = [spec.seed for spec in specs]
        self._batches = BatchStack(
            dataset, self._first.data.augment, self._first.batch_size, [seeds[r] for r in self._rows]
        )
        self._probe_index = self._stacked([probe_choice(seed, dataset) for seed in seeds])

    def _filled(self, runs: Sequence[int]) -> list[int]:
        """The runs, and behind them some a second time, to make up the number of rows."""
        rows = max(SMALLEST, len(runs)) if self._program is None else self._program.rows
        return [runs[i % len(runs)] for i in range(rows)]

    def _stacked(self, of_runs: Sequence[Tensor]) -> Tensor:
        return torch.stack([of_runs[row] for row in self._rows]).to(self.device)

    def _rate_table(self) -> Tensor:
        """Learning rates [total + 1, rows, 1]; after the last update, where probes still look, that of the last."""
        courses: dict[Any, Tensor] = {}
        for spec in self.specs:
            if spec.schedule not in courses:
                factors = [
                    spec.schedule.factor(min(step, self.total - 1), self.total) for step in range(self.total + 1)
                ]
                courses[spec.schedule] = torch.tensor(factors, dtype=torch.float64)
        rates = torch.stack([spec.lr * courses[spec.schedule] for spec in self.specs], 1)
        return rates[:, self._rows, None].float().to(self.device)

    # ------------------------------------------------------------------------------------------------ the step

    def _update(self, whole: bool = True) -> tuple[Tensor, Tensors]:
        losses, grads = self._step(*self._inputs(), whole=whole)
        return losses[: len(self.specs)], grads

    def _advance(self) -> None:
        if self._program is None:
            super()._advance()
            return
        losses = self._program(lambda *inputs: self._step(*inputs)[0], self._inputs())
        self.record.losses[self.step] = losses[: len(self.specs)]
        self.step += 1

    def _inputs(self) -> tuple[Any, ...]:
        """All tensors that the next update depends on; the first three groups it changes in place."""
        x, y = self._batches.gather(*self._batches.select(self.step))
        lr, t = self._rates[self.step], self._counts[self.step]
        return self.params, self.slots, self._buffer, self._numbers, lr, t, x, y

    def _step(
        self,
        params: Tensors,
        slots: list[dict[str, Tensor]],
        buffers: dict[str, Tensor],
        numbers: dict[str, Tensor],
        lr: Tensor,
        t: Tensor,
        x: Tensor,
        y: Tensor,
        *,
        whole: bool = False,
    ) -> tuple[Tensor, Tensors]:
        """Change `params`, `slots` and `buffers` by one update; returns the losses [rows] and the gradients of the
        pieces that are trained, or of the `whole`."""
        chosen = range(len(params)) if whole else self._trained
        leaves = [p.detach().requires_grad_(i in chosen) for i, p in enumerate(params)]
        losses = vmap(self._loss)(self._shaped(leaves), buffers, x, y)
        grads = dict(zip(chosen, torch.autograd.grad(losses.sum(), [leaves[i] for i in chosen]), strict=True))
        optim = with_tensors(self._first.optim, numbers)
        for i in self._trained:
            optim.update_(params[i], grads[i], slots[i], lr, t)
        return losses.detach(), list(grads.values())

    def _loss(self, params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        """One run's loss."""
        if self._first.precision == "bf16":
            with torch.autocast(self.device.type, torch.bfloat16):
                return self._first.loss.mean(functional_call(self.model, (params, buffers), (x,)), y)
        return self._first.loss.mean(functional_call(self.model, (params, buffers), (x,)), y)

    def _shaped(self, pieces: Tensors) -> dict[str, Tensor]:
        """Pieces [rows, p] by name, shaped as the parameters."""
        shapes = self._shapes.items()
        return {name: piece.view(-1, *shape) for (name, shape), piece in zip(shapes, pieces, strict=True)}

    # --------------------------------------------------------------------------------------- what is measured

    def _lr(self) -> Tensor:
        return self._rates[self.step, : len(self.specs), 0]

    def _looked_at(self) -> int:
        """How many rows are measured: those of the runs, and one more where a run is alone."""
        return max(SMALLEST, len(self.specs))

    @torch.no_grad()
    def _evaluated(self, split: str, images: int | None) -> Mapping[str, Tensor]:
        def one(params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
            return score(functional_call(self.model, (params, buffers), (x,)), y, self._first.loss)

        chosen = getattr(self.dataset, split)
        xs, ys = in_parts(chosen.x[:images]), in_parts(chosen.y[:images])
        state = self._state_looked_at()
        self.model.eval()
        scores = [vmap(one, in_dims=(0, 0, None, None))(*state, x, y) for x, y in zip(xs, ys, strict=True)]
        self.model.train()
        return first_rows(mean_scores(scores, sum(map(len, ys))), len(self.specs))

    @torch.no_grad()
    def _observed(self, probes: Mapping[str, ProbeSpec], mode: Mode) -> Mapping[str, Mapping[str, Tensor]]:
        def one(params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> dict[str, dict[str, Tensor]]:
            return observe(self._still, params, buffers, probes, x, mode)

        chosen, state = self._probe_index[: self._looked_at()], self._state_looked_at()
        parts = chosen.tensor_split(len(in_parts(chosen[0])), 1)
        return joined([vmap(one)(*state, self.dataset.train.x[part]) for part in parts], 1)

    def _state_looked_at(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Parameters and buffers of the rows looked at, by name."""
        return first_rows(self._shaped(self.params), self._looked_at()), first_rows(self._buffer, self._looked_at())

    def _inputs_of_network(self) -> dict[str, Any]:
        *_, x, y = self._inputs()
        return {
            "buffers": {name: b.clone() for name, b in self._buffer.items()},
            "batch": (x, y),
            "probe_index": self._probe_index,
            "lr": self._rates[self.step, :, 0],
        }

    def _probed(self, probe: ProbeSpec, seen: Mapping[str, Any]) -> Probed:
        rows = first_rows(seen, self._looked_at())
        measured, memory = vmap(lambda of_run: self._use(probe, of_run))({k: v for k, v in rows.items() if v})
        return first_rows(measured, len(self.specs)), memory

    def _named(self, pieces: Tensors) -> dict[str, Tensor]:
        return self._shaped(pieces)

    def _buffers(self) -> Mapping[str, Tensor]:
        return self._buffer

    # ------------------------------------------------------------------------------------------------ the runs

    def _keep(self, runs: Sequence[int]) -> None:
        rows = self._filled(runs)
        self.params = [piece[rows] for piece in self.params]
        self.start = [piece[rows] for piece in self.start]
        noted = rows[: max(SMALLEST, len(runs))]
        self.memory = {probe: {k: t[noted] for k, t in own.items()} for probe, own in self.memory.items()}
        self.slots = [{name: slot[rows] for name, slot in own.items()} for own in self.slots]
        self._buffer = {name: buffer[rows] for name, buffer in self._buffer.items()}
        self._numbers = {name: number[rows] for name, number in self._numbers.items()}
        self._rates = self._rates[:, rows]
        self._batches.keep(rows)
        self._probe_index = self._probe_index[rows]

    def state(self, run: int = 0) -> dict[str, Any]:
        names, trained = self._first.optim.slots(), [self.slots[i] for i in self._trained]
        slots = {name: torch.cat([own[name][run] for own in trained]) for name in names}
        buffers = {name: buffer[run].clone() for name, buffer in self._buffer.items()}
        memory = {probe: {k: t[run].clone() for k, t in own.items()} for probe, own in self.memory.items()}
        return self._state(run, torch.cat([piece[run] for piece in self.params]), slots, buffers, memory)

    def load(self, states: Sequence[dict[str, Any]]) -> None:
        sizes = [piece.shape[1] for piece in self.params]
        in_rows = [states[row] for row in self._rows]
        for piece, value in zip(self.params, torch.stack([s["params"] for s in in_rows]).split(sizes, 1), strict=True):
            piece.copy_(value)
        trained, sizes = [self.slots[i] for i in self._trained], [sizes[i] for i in self._trained]
        for name in self._first.optim.slots():
            values = torch.stack([s["slots"][name] for s in in_rows]).split(sizes, 1)
            for own, value in zip(trained, values, strict=True):
                own[name].copy_(value)
        for name, buffer in self._buffer.items():
            if all(name in s["buffers"] for s in in_rows):  # eps and the like are only there where they are free
                buffer.copy_(torch.stack([s["buffers"][name] for s in in_rows]))
        looked_at = in_rows[: self._looked_at()]
        for probe, own in looked_at[0]["memory"].items():
            self.memory[probe] = {k: torch.stack([s["memory"][probe][k] for s in looked_at]) for k in own}
        self._load(states)


def mixes_runs(model: nn.Module) -> bool:
    """Whether bits of a run would depend on the others: under vmap torch's batch norm has the units of all runs in one
    row, of which 64 are summed over the batch at once and what is left in another order."""
    return any(isinstance(module, nn.BatchNorm1d) and module.num_features % 64 for module in model.modules())


def first_rows(tensors: Any, rows: int) -> Any:
    """A tensor, or nested mappings and tuples of tensors, cut to the first rows."""
    if isinstance(tensors, tuple):
        return tuple(first_rows(inner, rows) for inner in tensors)
    if isinstance(tensors, Mapping):
        return {key: first_rows(value, rows) for key, value in tensors.items()}
    return tensors[:rows]


def with_tensors(optim: OptimSpec, numbers: Mapping[str, Tensor]) -> OptimSpec:
    """The optimizer with tensors [rows, 1] for those of its numbers that may differ among runs."""
    stacked = copy.copy(optim)
    for name, value in numbers.items():
        object.__setattr__(stacked, name, value)
    return stacked
