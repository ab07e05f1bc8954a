"""The batch of each step of a run, and of R runs at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bnstudy.data.augment import Draws, crop_flip, draw_epoch
from bnstudy.data.dataset import Dataset
from bnstudy.rng import stream


class BatchStream:
    """The training batches of the run with `seed`, as a function of the number of steps done.

    Each epoch takes the images in a new order and drops a last, incomplete batch. An epoch's order and draws are made
    once and kept on the device, so that a step costs an index operation.
    """

    def __init__(self, dataset: Dataset, augment: str, batch_size: int, seed: int) -> None:
        self.batch_size = batch_size
        self.steps_per_epoch = len(dataset.train) // batch_size
        self._train = dataset.train
        self._black_C = dataset.black
        self._augment = augment
        self._seed = seed
        self._epoch = -1
        self._order_N: Tensor
        self._draws_N: Draws | None = None

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch after `step` steps: x [B, C, H, W], augmented, and y [B]."""
        index_B, draws_B = self.select(step)
        x_BCHW, y_B = self._train.x.index_select(0, index_B), self._train.y.index_select(0, index_B)
        return (x_BCHW if draws_B is None else crop_flip(x_BCHW, draws_B, self._black_C)), y_B

    def select(self, step: int) -> tuple[Tensor, Draws | None]:
        """The indices [B] of that batch's training images, and their draws if they are augmented."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        order_N, draws_N = self.select_epoch(epoch)
        places = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
        return order_N[places], None if draws_N is None else draws_N.map(lambda t: t[places])

    def select_epoch(self, epoch: int) -> tuple[Tensor, Draws | None]:
        """The order [N] of the training images in an epoch, and their draws in that order."""
        if epoch != self._epoch:
            n, device = len(self._train), self._train.x.device
            self._order_N = torch.randperm(n, generator=stream(self._seed, "order", epoch)).to(device)
            if self._augment == "crop_flip":
                self._draws_N = draw_epoch(n, self._train.x.shape[2], self._seed, epoch).map(lambda t: t.to(device))
            self._epoch = epoch
        return self._order_N, self._draws_N


class BatchStack:
    """The batches of R runs at once: `BatchStream`s that differ only in their seeds."""

    def __init__(self, dataset: Dataset, augment: str, batch_size: int, seeds: Sequence[int]) -> None:
        self.batch_size = batch_size
        self._seeds = list(seeds)
        self._streams = {seed: BatchStream(dataset, augment, batch_size, seed) for seed in seeds}
        self._train, self._black_C = dataset.train, dataset.black
        self._epoch = -1
        self._order_RN: Tensor
        self._draws_RN: Draws | None = None

    def keep(self, runs: Sequence[int]) -> None:
        """Continue with these runs only, given as indices."""
        self._seeds = [self._seeds[run] for run in runs]
        self._streams = {seed: self._streams[seed] for seed in self._seeds}
        self._epoch = -1

    def select(self, step: int) -> tuple[Tensor, Draws | None]:
        """The indices [R, B] of the training images in the batches after `step` steps, and their draws [R, B]."""
        epoch, batch = divmod(step, len(self._train) // self.batch_size)
        if epoch != self._epoch:
            by_seed = {seed: batches.select_epoch(epoch) for seed, batches in self._streams.items()}
            orders, draws = zip(*(by_seed[seed] for seed in self._seeds), strict=True)
            self._order_RN = torch.stack(orders)
            if draws[0] is not None:
                self._draws_RN = Draws(*map(torch.stack, zip(*draws, strict=True)))
            self._epoch = epoch
        places = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
        draws_RB = self._draws_RN and self._draws_RN.map(lambda t: t[:, places].contiguous())
        return self._order_RN[:, places].contiguous(), draws_RB

    def gather(self, index_RB: Tensor, draws_RB: Draws | None) -> tuple[Tensor, Tensor]:
        """The batches of such a selection: x [R, B, C, H, W], augmented, and y [R, B]."""
        flat = index_RB.flatten()
        x, y = self._train.x.index_select(0, flat), self._train.y.index_select(0, flat)
        if draws_RB is not None:
            x = crop_flip(x, draws_RB.map(Tensor.flatten), self._black_C)
        return x.view(*index_RB.shape, *x.shape[1:]), y.view(*index_RB.shape, *y.shape[1:])
