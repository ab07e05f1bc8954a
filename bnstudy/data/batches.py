"""The batches of a run, by update number."""

from __future__ import annotations

import torch
from torch import Tensor

from bnstudy.data.augment import Draws, crop_flip, epoch_draws
from bnstudy.data.dataset import Dataset
from bnstudy.rng import stream


class BatchStream:
    """The training batches of the run with `seed`, as a function of the number of updates done.

    Each epoch takes the pictures in a new order and leaves out those that do not fill a batch. An epoch's order
    and draws are made once and kept on the device, so that a step costs an index operation.

    batch_size: at most the size of the training split.
    augment: `none` or `crop_flip`, as `DataSpec.augment` has it.
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
        """The batch of update `step` + 1: x [B, C, H, W], augmented as asked, and y [B]."""
        index_B, draws_B = self.choice(step)
        x_BCHW, y_B = self._train.x.index_select(0, index_B), self._train.y.index_select(0, index_B)
        return (x_BCHW if draws_B is None else crop_flip(x_BCHW, draws_B, self._black_C)), y_B

    def choice(self, step: int) -> tuple[Tensor, Draws | None]:
        """Which training pictures that batch holds, as indices [B], and their draws if they are augmented."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._begin(epoch)
        places = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
        return self._order_N[places], None if self._draws_N is None else self._draws_N.at(places)

    def _begin(self, epoch: int) -> None:
        n, device = len(self._train), self._train.x.device
        self._order_N = torch.randperm(n, generator=stream(self._seed, "order", epoch)).to(device)
        if self._augment == "crop_flip":
            self._draws_N = epoch_draws(n, self._train.x.shape[2], self._seed, epoch).to(device)
        self._epoch = epoch
