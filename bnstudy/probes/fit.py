"""How well the network has learned what it was shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bnstudy.probes.base import ProbeSpec, Snapshot
from bnstudy.probes.network import in_parts


@dataclass(frozen=True)
class TrainingFit(ProbeSpec):
    """On the run's probe batch, fixed training images without augmentation, in evaluation mode: with running
    statistics, before the first update too, and without noise.

    `train_accuracy`: share of right answers; only where there are labels.
    `train_loss`: mean loss.

    So they are measured as those on the validation and test splits are: the generalization gap is `train_accuracy` less
    the test accuracy of the same update. The losses and accuracies of training itself are those of batches, in training
    mode and while the weights move.
    """

    needs_network: ClassVar[bool] = True

    def measure(self, snapshot: Snapshot) -> Mapping[str, Mapping[str, Tensor]]:
        network = snapshot.network
        x, y = network.probe_batch()
        out = torch.cat([network(snapshot.params, part, "running") for part in in_parts(x)])
        measured = {"train_loss": {"": network.loss_spec.mean(out, y)}}
        if network.dataset.is_labelled:
            measured["train_accuracy"] = {"": (out.argmax(1) == y).to(out.dtype).mean()}
        return measured
