"""How runs end: finished, not learned, or diverged, and against what that is measured."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bnstudy.data.dataset import Dataset, DecodedImages, assemble, stratified_split
from bnstudy.run import RunSpec
from bnstudy.train.loop import Training, balanced_accuracy
from bnstudy.train.record import Outcome
from tests.conftest import CPU, spec_of
from tests.train.helpers import ENGINES, train_all, values_by_step


def noise(*shares: float) -> Dataset:
    """Random images of classes with these shares, which no network can tell apart."""
    generator = torch.Generator().manual_seed(0)

    def draw(n: int) -> tuple[Tensor, Tensor]:
        y = torch.repeat_interleave(torch.arange(len(shares)), torch.tensor([round(n * share) for share in shares]))
        return torch.randint(256, (len(y), 1, 4, 4), dtype=torch.uint8, generator=generator), y

    decoded = DecodedImages(*draw(1000), *draw(500), tuple("abcdefgh"[: len(shares)]))
    val, train = stratified_split(decoded.train_y, 0.2)
    return assemble("noise", decoded, train, val, CPU)


UNBALANCED, BALANCED = noise(0.8, 0.2), noise(0.25, 0.25, 0.25, 0.25)

Change = Callable[[Training, int], float]
"""(training, step) -> the factor on the loss of that step; may change the parameters after it."""


def train(engine: str, spec: RunSpec, dataset: Dataset, change: Change | None = None) -> Outcome:
    """Train a run, in the stacked engine beside another seed, whose outcome is not of interest."""
    training = ENGINES[engine]([spec, replace(spec, seed=spec.seed + 1)], dataset)
    if change is not None:
        step = training.engine.step_with_grads
        training.engine.step = lambda t: step(t)[0] * change(training, t)  # type: ignore[method-assign]
        training.engine.step_with_grads = lambda t: (  # type: ignore[method-assign]
            (found := step(t))[0] * change(training, t),
            found[1],
        )
        training._warm_up = lambda: None  # type: ignore[method-assign]
    return train_all(training)[spec.run_id]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dataset", [UNBALANCED, BALANCED], ids=["80:20", "balanced"])
def test_a_dead_network_did_not_learn_whatever_the_sizes_of_the_classes(engine, dataset):
    outcome = train(engine, spec_of("norm=none", "lr=1e-9"), dataset)
    assert (outcome.status, outcome.learned, outcome.diverged_step) == ("finished", False, None)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_that_learns_unbalanced_classes_has_learned(engine, digits):
    splits = {name: getattr(digits, name) for name in ("train", "val", "test")}
    zeros = replace(digits, classes=2, **{k: replace(split, y=(split.y == 0).long()) for k, split in splits.items()})
    assert zeros.is_unbalanced
    assert zeros.guessing["test"] == pytest.approx(0.9, abs=0.01)
    outcome = train(engine, spec_of("norm=batch", "lr=0.1", "steps=60"), zeros)
    assert (outcome.status, outcome.learned) == ("finished", True)
    assert outcome.final["val_balanced_accuracy"] > 0.9


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_that_are_nan_after_the_last_update_are_a_divergence(engine):
    """Then argmax is 0, which is right for 80% of the images."""

    def change(training: Training, t: int) -> float:
        if t == 19:
            for piece in training.engine.params:
                piece.fill_(math.nan)
        return 1.0

    outcome = train(engine, spec_of("lr=0.01"), UNBALANCED, change)
    assert (outcome.status, outcome.learned, outcome.diverged_step) == ("diverged", None, 20)
    assert outcome.diverged_because == "validation loss nan after the last step"
    assert outcome.test_correct is None
    assert all(math.isfinite(loss) for loss in values_by_step(outcome.metrics, "train", "loss").values())


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_that_blow_up_in_the_last_update_are_a_divergence(engine, digits):
    def change(training: Training, t: int) -> float:
        if t == 19:
            for piece in training.engine.params:
                piece.mul_(-1e4)
        return 1.0

    outcome = train(engine, spec_of("norm=none", "lr=0.1"), digits, change)
    assert (outcome.status, outcome.diverged_step) == ("diverged", 20)
    assert "validation loss above 10 times" in outcome.diverged_because


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("length", [1, 9])
def test_a_run_that_recovers_from_a_large_loss_is_finished(engine, length, digits):
    spec = spec_of("norm=batch", "lr=0.1", "steps=60")
    outcome = train(engine, spec, digits, lambda _, t: 1e6 if 5 <= t < 5 + length else 1.0)
    assert (outcome.status, outcome.learned, outcome.diverged_step) == ("finished", True, None)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_that_does_not_recover_from_a_large_loss_diverged_there(engine, digits):
    outcome = train(engine, spec_of("norm=none", "lr=1e-9"), digits, lambda _, t: 1e6 if t == 5 else 1.0)
    assert (outcome.status, outcome.diverged_step) == ("diverged", 5)
    assert outcome.diverged_because.endswith("and the run did not recover")
    assert outcome.metrics.to_pandas().step.max() == 20  # it was measured until its end


@pytest.mark.parametrize("engine", ENGINES)
def test_a_lasting_large_loss_is_a_divergence_at_its_first_step(engine, digits):
    spec = spec_of("norm=batch", "lr=0.1", "steps=60")
    outcome = train(engine, spec, digits, lambda _, t: 1e6 if 5 <= t < 15 else 1.0)
    assert (outcome.status, outcome.diverged_step) == ("diverged", 5)


@pytest.mark.parametrize(("before", "status"), [(30.0, "finished"), (2.0, "diverged")])
def test_a_validation_loss_that_grew_slowly_is_no_divergence(monkeypatch, before, status):
    """A network that memorizes noise is sure of its wrong answers on other images."""
    training = ENGINES["serial"]([spec_of("norm=none", "lr=0.01")], UNBALANCED)

    def evaluate(*_):
        loss = {0: 2.0, 20: 40.0}.get(training.step, before)
        return {"loss": torch.tensor(loss), "accuracy": torch.tensor(0.8)}, None

    monkeypatch.setattr("bnstudy.train.loop.evaluate", evaluate)
    [outcome] = train_all(training).values()
    assert outcome.status == status


def test_balanced_accuracy_is_the_mean_over_classes_of_the_share_that_is_right():
    y = torch.tensor([0, 0, 0, 0, 2, 2, 3])  # class 1 has no image
    correct = torch.tensor([[1, 1, 1, 0, 1, 0, 0], [1, 1, 1, 1, 0, 0, 0]], dtype=torch.bool)
    expected = [(3 / 4 + 1 / 2 + 0) / 3, 1 / 3]
    assert balanced_accuracy(correct, y).tolist() == pytest.approx(expected)
    assert float(balanced_accuracy(correct[0], y)) == pytest.approx(expected[0])


def test_the_balanced_accuracy_of_a_perfect_network_is_exactly_1():
    for n, m, k in itertools.product(range(1, 12), range(13, 40, 3), (1, 3, 7)):
        y = torch.tensor([0] * n + [1] * m + [2] * k)
        assert float(balanced_accuracy(torch.ones(len(y), dtype=torch.bool), y).float()) == pytest.approx(1)
        assert float(balanced_accuracy(torch.ones(len(y), dtype=torch.bool), y).float()) <= 1


@pytest.mark.parametrize("engine", ENGINES)
def test_only_unbalanced_classes_have_a_balanced_accuracy(engine, digits):
    for dataset, has in ((digits, False), (UNBALANCED, True)):
        outcome = train(engine, spec_of("steps=4"), dataset)
        assert ("test_balanced_accuracy" in outcome.final) is has
        assert ("balanced_accuracy" in outcome.metrics.to_pandas().metric.unique()) is has
