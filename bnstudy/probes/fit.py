"""The fit to the training images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bnstudy.probes.base import ProbeSpec, Snapshot


@dataclass(frozen=True)
class TrainingFit(ProbeSpec):
    """Loss and accuracy on the run's probe batch: fixed training images without augmentation, in evaluation mode, with
    running statistics even before the first step.

    `train_accuracy`: share of correct answers; only with labels.
    `train_loss`: mean loss.

    They are measured as on the validation and test splits, so the generalization gap is `train_accuracy` minus the test
    accuracy at the same step. The training loss of each step is of one batch, in training mode.
    """

    needs_network: ClassVar[bool] = True

    def measure(self, snapshot: Snapshot) -> Mapping[str, Mapping[str, Tensor]]:
        network = snapshot.network
        x, y = network.probe_batch()
        out = network.evaluate(snapshot.params, x)
        measured = {"train_loss": {"": network.loss_spec.mean(out, y)}}
        if network.dataset.is_labelled:
            measured["train_accuracy"] = {"": (out.argmax(1) == y).to(out.dtype).mean()}
        return measured
