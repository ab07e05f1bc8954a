"""The batch of each step of a run, and of R runs at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bnstudy.data.augment import Draws, change, draw_epoch
from bnstudy.data.base import Length
from bnstudy.data.dataset import Dataset
from bnstudy.rng import stream


class BatchStream:
    """The training batches of the run with `seed`, as a function of the number of steps done.

    Each epoch takes the images in a new order and drops a last, incomplete batch. An epoch's order and draws are made
    once and kept on the device, so that a step costs an index operation.
    """

    def __init__(
        self, dataset: Dataset, augment: str, batch_size: int, seed: int, length: Length | None = None
    ) -> None:
        self.batch_size = batch_size
        self.steps_per_epoch = len(dataset.train) // batch_size
        self._train = dataset.train
        self._black_C = dataset.black
        self._augment, self._length = augment, length
        self._seed = seed
        self._epoch = -1
        self._order_N: Tensor
        self._draws_N: Draws = {}

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch after `step` steps: x [B, C, H, W], augmented, and y [B]."""
        index_B, draws_B = self.select(step)
        x_BCHW, y_B = self._train.x.index_select(0, index_B), self._train.y.index_select(0, index_B)
        return change(x_BCHW, draws_B, self._black_C), y_B

    def select(self, step: int) -> tuple[Tensor, Draws]:
        """The indices [B] of that batch's training images, and their draws."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        order_N, draws_N = self.select_epoch(epoch)
        places = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
        return order_N[places], {name: of_all[places] for name, of_all in draws_N.items()}

    def select_epoch(self, epoch: int) -> tuple[Tensor, Draws]:
        """The order [N] of the training images in an epoch, and their draws in that order."""
        if epoch != self._epoch:
            n, device = len(self._train), self._train.x.device
            self._order_N = torch.randperm(n, generator=stream(self._seed, "order", epoch)).to(device)
            draws = draw_epoch(n, self._train.x.shape[2], self._augment, self._length, self._seed, epoch)
            self._draws_N = {name: of_all.to(device) for name, of_all in draws.items()}
            self._epoch = epoch
        return self._order_N, self._draws_N


class BatchStack:
    """The batches of R runs at once: `BatchStream`s that differ only in their seeds."""

    def __init__(
        self, dataset: Dataset, augment: str, batch_size: int, seeds: Sequence[int], length: Length | None = None
    ) -> None:
        self.batch_size = batch_size
        self._seeds = list(seeds)
        self._streams = {seed: BatchStream(dataset, augment, batch_size, seed, length) for seed in seeds}
        self._train, self._black_C = dataset.train, dataset.black
        self._epoch = -1
        self._order_RN: Tensor
        self._draws_RN: Draws = {}

    def keep(self, runs: Sequence[int]) -> None:
        """Continue with these runs only, given as indices."""
        self._seeds = [self._seeds[run] for run in runs]
        self._streams = {seed: self._streams[seed] for seed in self._seeds}
        self._epoch = -1

    def select(self, step: int) -> tuple[Tensor, Draws]:
        """The indices [R, B] of the training images in the batches after `step` steps, and their draws [R, B]."""
        epoch, batch = divmod(step, len(self._train) // self.batch_size)
        if epoch != self._epoch:
            by_seed = {seed: batches.select_epoch(epoch) for seed, batches in self._streams.items()}
            orders, draws = zip(*(by_seed[seed] for seed in self._seeds), strict=True)
            self._order_RN = torch.stack(orders)
            self._draws_RN = {name: torch.stack([of_run[name] for of_run in draws]) for name in draws[0]}
            self._epoch = epoch
        places = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
        draws_RB = {name: of_all[:, places].contiguous() for name, of_all in self._draws_RN.items()}
        return self._order_RN[:, places].contiguous(), draws_RB

    def gather(self, index_RB: Tensor, draws_RB: Draws) -> tuple[Tensor, Tensor]:
        """The batches of such a selection: x [R, B, C, H, W], augmented, and y [R, B]."""
        flat = index_RB.flatten()
        x, y = self._train.x.index_select(0, flat), self._train.y.index_select(0, flat)
        x = change(x, {name: of_all.flatten() for name, of_all in draws_RB.items()}, self._black_C)
        return x.view(*index_RB.shape, *x.shape[1:]), y.view(*index_RB.shape, *y.shape[1:])
