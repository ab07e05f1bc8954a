"""The training loop: measure if due, then step."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from bnstudy.data.augment import keep_rows
from bnstudy.data.dataset import Dataset, Split
from bnstudy.losses import LossSpec
from bnstudy.models.functional import run_with
from bnstudy.probes.network import in_parts, random_order
from bnstudy.run import RunSpec
from bnstudy.train.divergence import Divergence
from bnstudy.train.engine import Engine, Tensors, in_precision, undone
from bnstudy.train.probing import PROBE_BATCH, Probing
from bnstudy.train.record import Outcome, Record, Stopwatch
from bnstudy.train.serial import SerialEngine
from bnstudy.train.stacked import StackedEngine
from bnstudy.validation import ConfigError

REPEATED = 6
"""Evaluations of a run from which on recording one is worth it: it takes as long as three evaluations."""

Done = Callable[[Sequence[tuple[RunSpec, Outcome]]], None]


@dataclass(frozen=True)
class Stopped:
    """Where a run ends, and the step of its best evaluation.

    early_step: the step, if it is before the planned end.
    """

    step: int
    best_step: int
    early_step: int | None


class Training:
    """Runs in training, all at the same step.

    A checkpoint may be taken between any two steps: at step t, everything due before t has been measured, and nothing
    due at t.

    specs: the runs still in training.
    step: the number of steps done, of `total`.
    """

    beat_seconds = 0.5

    def __init__(
        self,
        engine: Engine,
        specs: Sequence[RunSpec],
        dataset: Dataset,
        device: torch.device,
        stopped: Stopped | None = None,
    ) -> None:
        """
        Args:
            stopped: for a run that only makes its end.
        """
        first, dataset = specs[0], in_precision(dataset, specs[0])
        self.engine, self.specs, self.dataset, self.device = engine, list(specs), dataset, device
        check_evaluation(first, dataset)
        self.name = engine.name
        planned = first.total_steps(len(dataset.train))
        self.step, self.total = 0, stopped.step if stopped else planned
        self._stopped, self._stopping = stopped, None if stopped else first.early_stopping
        self._best: list[dict[str, Any]] = [{} for _ in specs]
        self._ended: list[tuple[RunSpec, Outcome]] = []
        guessing = first.loss.of_guessing(dataset.train.y, dataset.classes)
        self.record = Record(self.total, len(dataset.train) // first.batch_size, len(specs), device, guessing)
        self.record.losses = self.record.losses.to(dataset.train.x.dtype)
        self.record.planned = planned
        self.watch = Stopwatch(device, len(specs))
        self.probing = Probing(first, engine, dataset, self.total, self.watch)
        self._evaluation = first.evaluation
        self._evaluations = frozenset(first.evaluation.when.resolve(self.total))
        self._due = self._evaluations.union(*self.probing.steps.values())

    def train(self, done: Done, beat: Callable[[Training], None] = lambda _: None) -> None:
        """Train every run to its end, or until it diverges.

        Args:
            done: called with runs and their outcomes as soon as they leave.
            beat: called about twice a second, between two steps.
        """
        self._warm_up()
        next_beat = time.perf_counter() + self.beat_seconds
        with self.watch("training"):
            while self.specs:
                if self.step not in self._due:
                    self._make_step()
                else:
                    # Probes measure the state before a step, but may need its gradients and the change that it makes.
                    step = self.step
                    self._evaluate()
                    self._stop_early()
                    if self.specs:
                        params = [piece.clone() for piece in self.engine.params]
                        state = self.probing.copy_state(step, params)
                        update = self._make_step_for_probes(params)
                        self.probing.measure(step, {**state, **update}, self.record)
                    self._release(done, ended=step == self.total)
                if time.perf_counter() > next_beat and self.specs:
                    with self.watch(None):
                        beat(self)
                    next_beat = time.perf_counter() + self.beat_seconds

    def _make_step(self) -> None:
        self.record.losses[self.step] = self.engine.step(self.step)
        self.step += 1

    def _make_step_for_probes(self, before: Tensors) -> dict[str, dict[str, Tensor]]:
        """Make a step and return its `grads` and the `update` of the parameters. When all steps are done, make another
        only if a probe needs it, and undo it.

        before: a copy of the parameters.
        """
        ended = self.step == self.total
        if ended and not self.probing.needs(self.step) & {"grads", "update"}:
            return {}
        with undone(self.engine) if ended else nullcontext():
            losses, grads = self.engine.step_with_grads(self.step)
            change = [now - then for now, then in zip(self.engine.params, before, strict=True)]
        if not ended:
            self.record.losses[self.step] = losses
            self.step += 1
        return {"grads": self.engine.by_name(grads), "update": self.engine.by_name(change)}

    def _warm_up(self) -> None:
        """Make the next step and undo it. Otherwise the training time of the first arm would include what torch loads
        and records at its first step."""
        if self.specs and self.step < self.total:
            with self.watch("starting"), undone(self.engine):
                self.engine.step(self.step)

    def _evaluate(self) -> None:
        with self.watch("evaluation"):
            self.record.timing.append((self.step, self.watch.seconds["training"]))
            if self.step not in self._evaluations:
                return
            # A run that ends with its best weights is evaluated with them on all images later.
            is_last = self.step == self.total and not (self._stopping and self._stopping.best_weights)
            images = None if is_last else self._evaluation.images
            for split in ("val", "test"):
                of_split = getattr(self.dataset, split)
                # Only the last one may be of all images: recorded, it fills gigabytes, and is not repeated.
                repeats = images == self._evaluation.images and len(self._evaluations) >= REPEATED
                name = f"{split} {images}" if repeats else ""
                scores, correct = evaluate(self.engine, of_split, self.specs[0], images, name)
                if split == "test" and self.step == self.total and correct is not None:
                    self.record.test_correct = torch.atleast_2d(correct)[: len(self.specs)].cpu()
                if self.dataset.is_unbalanced and correct is not None:
                    y = getattr(self.dataset, split).y[:images]
                    scores["balanced_accuracy"] = balanced_accuracy(correct, y)
                for metric, values in scores.items():
                    self.record.add(self.step, split, metric, {"": values})
            self.record.add(self.step, "", "lr", {"": self.engine.learning_rate(self.step)})
            if self.step == self.total:
                self._evaluate_lengths()

    def _evaluate_lengths(self) -> None:
        """Measure the accuracy on test images of which only the first rows are there."""
        test, by_length = self.dataset.test, {}
        for rows in self.specs[0].data.lengths_tested(self.dataset.shape[1]) if self.dataset.is_labelled else ():
            scores, _ = evaluate(self.engine, Split(keep_rows(test.x, rows), test.y), self.specs[0])
            by_length[f"rows{rows}"] = scores["accuracy"]
        self.record.add(self.step, "test", "accuracy_at_length", by_length)

    def _stop_early(self) -> None:
        """Keep the weights of runs that are better than before, and make the end of those that are not for long."""
        stopping = self._stopping
        if stopping is None or self.step not in self._evaluations:
            return
        assert stopping.patience is not None  # else the specs have no early stopping
        with self.watch(None):
            self.record.flush()
            diverged, leaving = self.record.find_diverged(self.step), []
            for run, spec in enumerate(self.specs):
                steps, values = zip(*self.record.series(run, "val", stopping.by, self.step), strict=True)
                best = stopping.best(values)
                if steps[best] == self.step and stopping.best_weights:
                    own = self.engine.state(run)
                    self._best[run] = tree_map(torch.clone, {key: own[key] for key in ("params", "slots", "buffers")})
                stops = len(values) - 1 - best >= stopping.patience and self.step < self.total
                if run not in diverged and (stops or (self.step == self.total and stopping.best_weights)):
                    stopped = Stopped(self.step, steps[best], self.step if stops else None)
                    self._ended.append((spec, self._make_end(run, stopped)))
                    leaving.append(run)
            self._drop(leaving)

    def _make_end(self, run: int, stopped: Stopped) -> Outcome:
        """The outcome of a run that ends at this step, with its best weights if they are kept."""
        spec, outcomes = self.specs[run], list[tuple[RunSpec, Outcome]]()
        state = {**self.state(run), **self._best[run], "record": self.record.state_before(run, self.step)}
        end = Training(SerialEngine(spec, self.dataset, self.device), [spec], self.dataset, self.device, stopped)
        end.load([state])
        end.train(outcomes.extend)
        return outcomes[0][1]

    def _best_step(self, run: int) -> int | None:
        """The step of the best evaluation by the measure of early stopping; None without one."""
        if self._stopped is not None:
            return self._stopped.best_step
        stopping = self._stopping
        evaluations = self.record.series(run, "val", stopping.by, self.step) if stopping else []
        if stopping is None or not evaluations:  # a run that diverged before
            return None
        return evaluations[stopping.best([value for _, value in evaluations])][0]

    def _release(self, done: Done, ended: bool) -> None:
        """Let runs leave that stopped early or diverged, or all if training has ended."""
        with self.watch(None):
            diverged = self.record.find_diverged(self.step)
            leaving = [run for run in range(len(self.specs)) if ended or run in diverged]
            outcomes = self._ended + [(self.specs[run], self._conclude(run, diverged.get(run))) for run in leaving]
            if outcomes:
                self._ended = []
                done(outcomes)
            self._drop(leaving)

    def _conclude(self, run: int, divergence: Divergence | None) -> Outcome:
        seconds, probe_seconds = self.watch.seconds, self.probing.seconds
        stopped_step = self._stopped.early_step if self._stopped else None
        return self.record.conclude(
            run, divergence, self.dataset, seconds, probe_seconds, self._best_step(run), stopped_step
        )

    def leave(self, run_ids: Collection[str]) -> None:
        """Drop these runs without an outcome: another process trains them."""
        self._drop([run for run, spec in enumerate(self.specs) if spec.run_id in run_ids])

    def _drop(self, leaving: Collection[int]) -> None:
        staying = [run for run in range(len(self.specs)) if run not in leaving]
        if leaving and staying:
            self.engine.keep(staying)
            self.record.keep(staying)
            self._best = [self._best[run] for run in staying]
        self.specs = [self.specs[run] for run in staying]
        self.watch.shared_by = max(1, len(staying))

    def state(self, run: int = 0) -> dict[str, Any]:
        """Everything that the rest of a run depends on, as tensors and plain data; the same for both engines."""
        return {
            "step": self.step,
            **self.engine.state(run),
            "record": self.record.state(run),
            "best": self._best[run],
            "seconds": dict(self.watch.seconds),
            "probe_seconds": dict(self.probing.seconds),
        }

    def load(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Continue from the runs' states, all at one step.

        Raises:
            KeyError, RuntimeError, ValueError: a state does not fit its run; the state of the runs is then undefined.
        """
        self.engine.load(states)
        self.step = states[0]["step"]
        self.record.load([state["record"] for state in states])
        self._best = [state.get("best", {}) for state in states]
        self.watch.seconds.update(states[0]["seconds"])
        self.probing.seconds.update(states[0]["probe_seconds"])


def start_serial(spec: RunSpec, dataset: Dataset, device: torch.device) -> Training:
    """One run in the serial engine. Raises ConfigError: spec and data do not fit together."""
    return Training(SerialEngine(spec, dataset, device), [spec], dataset, device)


def start_stacked(
    specs: Sequence[RunSpec],
    dataset: Dataset,
    device: torch.device,
    free: bool = False,
    compiled: bool = True,
    successor_of: StackedEngine | None = None,
) -> Training:
    """Runs with equal `stack_key` in the stacked engine; see `StackedEngine`."""
    return Training(StackedEngine(specs, dataset, device, free, compiled, successor_of), specs, dataset, device)


@torch.no_grad()
def evaluate(
    engine: Engine, split: Split, spec: RunSpec, images: int | None = None, name: str = ""
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Evaluate each run in evaluation mode, in float32 or float64, in batches as `Evaluation` describes them.

    Args:
        spec: of one of the runs, which share loss and evaluation.
        images: use the first images of the split only; None for all.
        name: of an evaluation that is repeated, with the same images each time.

    Returns: mean `loss` and, if there are labels, `accuracy` (a share); and which images [R, N] the runs classify
        correctly, [N] in the serial engine, None without labels.
    """
    x_N, y_N, size = split.x[:images], split.y[:images], spec.evaluation.batch_size
    order = None if size is None else random_order(len(y_N), y_N.device)
    if order is not None:
        x_N, y_N = x_N[order], y_N[order]
    xs, ys = in_parts(x_N, size), in_parts(y_N, size)
    params, buffers = engine.by_name(engine.params), engine.buffers()

    def score_parts() -> list[dict[str, Tensor]]:
        def score_part(x: Tensor, y: Tensor, p: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
            return score(run_with(engine.model, {**p, **b}, x), y, spec.loss)

        return [engine.map(partial(score_part, x, y), params, buffers) for x, y in zip(xs, ys, strict=True)]

    engine.model.eval()
    parts = engine.repeat(name, score_parts) if name else score_parts()
    engine.model.train()
    n = sum(map(len, ys))
    means = {"loss": torch.stack([part["loss"] for part in parts]).sum(0) / n}
    if "correct" not in parts[0]:
        return means, None
    correct = torch.cat([part["correct"] for part in parts], -1)
    if order is not None:
        correct = correct[..., order.argsort()]
    return {**means, "accuracy": correct.sum(-1) / n}, correct


def check_evaluation(spec: RunSpec, dataset: Dataset) -> None:
    """Raises ConfigError if an image has fewer rows than are read, if the norm evaluates with the statistics of a batch
    and a batch would be a single image, or if early stopping is by an accuracy that there is not."""
    spec.data.lengths_tested(dataset.shape[1])
    if spec.early_stopping and spec.early_stopping.by == "accuracy" and not dataset.is_labelled:
        raise spec.early_stopping.refuse("by", f"loss with {dataset.name}, which has no labels")
    size, images = spec.evaluation.batch_size, spec.evaluation.images
    if size is None:
        return
    because = f"with norm={spec.norm.label}, which evaluates with the statistics of a batch"
    if images == 1:
        raise spec.evaluation.refuse("images", f"at least 2, or null for all, {because}")
    splits = {"validation": len(dataset.val), "test": len(dataset.test)}
    for name, n in splits.items():
        if n == 1:
            raise ConfigError(f"A {name} split of a single image is not allowed {because}: use more images.")
    numbers = {*splits.values(), *(min(n, images or n) for n in splits.values())}
    numbers |= {min(PROBE_BATCH, len(dataset.train))} if spec.probe else set()
    alone = [n for n in sorted(numbers) if n // -(-n // size) < 2]
    if alone:
        least = 3 if any(n % 2 for n in numbers) else 2
        single = f"one batch of the {alone[0]} images would be a single image"
        raise spec.evaluation.refuse("batch_size", f"at least {least} {because}: {single}")


def score(out: Tensor, y: Tensor, loss: LossSpec) -> dict[str, Tensor]:
    """The sum of the loss over the samples and, if there are labels, whether each answer is `correct`, [N]."""
    scores = {"loss": loss.each(out, y).sum()}
    return scores if y.is_floating_point() else {**scores, "correct": out.argmax(1) == y}


def balanced_accuracy(correct: Tensor, y: Tensor) -> Tensor:
    """The mean over the classes in `y` [N] of the share of their images that are correct, [..., N]: that of guessing is
    1 / classes, however unequal their sizes."""
    sizes = y.bincount()
    # In float64 and clamped: rounding must not make it exceed 1.
    weights = 1 / (sizes[y].double() * (sizes > 0).sum())
    return (correct * weights).sum(-1).clamp(max=1.0)
