from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bnstudy.data.dataset import Dataset, Split
from bnstudy.norms.none import NoNorm
from bnstudy.probes.base import ProbeSpec
from bnstudy.probes.fit import TrainingFit
from bnstudy.run import Evaluation, RunSpec
from bnstudy.train.build import build_model
from bnstudy.train.loop import evaluate
from bnstudy.train.probing import draw_probe_index
from bnstudy.train.stacked import StackedEngine
from bnstudy.validation import ConfigError, to_dict
from bnstudy.when import At
from tests.conftest import spec_of
from tests.train.helpers import ENGINES, train_all, values_by_step

BY_BATCH = "norm.track_running_stats=false"

engines = pytest.mark.parametrize("engine", ENGINES)


def with_splits(digits: Dataset, train: int = 256, val: int = 32, test: int = 32) -> Dataset:
    sizes = {"train": train, "val": val, "test": test}
    return replace(digits, **{s: Split(getattr(digits, s).x[:n], getattr(digits, s).y[:n]) for s, n in sizes.items()})


def evaluate_in_a_loop(model: torch.nn.Module, split: Split, size: int) -> tuple[float, list[bool]]:
    """The mean loss and which images are classified correctly, batch by batch in a fixed random order."""
    losses, correct = np.empty(len(split)), np.empty(len(split), bool)
    order = np.random.default_rng(0).permutation(len(split))
    for images in np.array_split(order, -(-len(split) // size)):
        with torch.no_grad():
            out, y = model(split.x[images]), split.y[images]
        losses[images] = F.cross_entropy(out, y, reduction="none")
        correct[images] = out.argmax(1) == y
    return losses.mean(), correct.tolist()


@engines
@pytest.mark.parametrize("norm", ["batch", "ghost", "noisy_batch"])
def test_batch_statistics_in_evaluation_are_those_of_random_batches_of_the_given_size(engine, norm, digits):
    digits = with_splits(digits, train=1000, test=103)
    choices = (f"norm={norm}", BY_BATCH, "steps=30", "evaluation.batch_size=5", "probe=none")
    specs = [spec_of(*choices, f"seed={seed}") for seed in (0, 1)]
    training = ENGINES[engine](specs, digits)
    model = training.engine.model
    train_all(training)
    scores, correct = evaluate(training.engine, digits.test, specs[0])
    params, buffers = training.engine.by_name(training.engine.params), training.engine.buffers()
    first = {name: t[0] if engine == "stacked" else t for name, t in {**params, **buffers}.items()}
    model.load_state_dict({name: first[name] for name in model.state_dict()})
    loss, expected = evaluate_in_a_loop(model.eval(), digits.test, 5)
    assert 0.2 < np.mean(expected) < 0.9
    assert torch.atleast_2d(correct)[0].tolist() == expected
    assert scores["loss"].reshape(-1)[0].item() == pytest.approx(loss, rel=1e-4)


@engines
def test_early_evaluations_shuffle_the_stratified_sample(engine, digits):
    spec = replace(spec_of(BY_BATCH), evaluation=Evaluation(At((0,)), images=50, batch_size=7))
    training = ENGINES[engine]([spec], digits)
    sample = Split(digits.val.x[:50], digits.val.y[:50])
    model = ENGINES["serial"]([spec], digits).engine.model.eval()
    loss, correct = evaluate_in_a_loop(model, sample, 7)
    [outcome] = train_all(training).values()
    assert values_by_step(outcome.metrics, "val", "loss")[0] == pytest.approx(loss, rel=1e-5)
    assert values_by_step(outcome.metrics, "val", "accuracy")[0] == pytest.approx(np.mean(correct))


@pytest.mark.parametrize(("images", "repeated"), [(50, 7), (None, 8)])
def test_the_last_evaluation_is_compiled_only_if_all_are_of_the_same_images(images, repeated, digits, monkeypatch):
    names = list[str]()
    monkeypatch.setattr(StackedEngine, "repeat", lambda _, name, function: names.append(name) or function())
    evaluation = Evaluation(At((0, 1, 2, 3, 4, 5, 6, 7)), images=images)
    train_all(ENGINES["stacked"]([replace(spec_of("steps=7"), evaluation=evaluation)], with_splits(digits)))
    assert names == [f"val {images}", f"test {images}"] * repeated


@dataclass(frozen=True)
class OutputSize(ProbeSpec):
    def observe(self, activation, z, a):  # noqa: ARG002
        return a

    def measure(self, snapshot):
        return {"output_size": {"": snapshot.observed["out"].square().mean()}}


@engines
def test_probes_in_evaluation_mode_use_the_same_batches(engine, digits):
    """Also before the first step."""
    digits, when = with_splits(digits, train=103), At((0,))
    probes = {"fit": TrainingFit(when=when), "observed": OutputSize(when=when)}
    choices = (BY_BATCH, "evaluation.batch_size=5", "batch_size=8", "model.width=8", "steps=5")
    specs = [replace(spec_of(*choices, f"seed={seed}"), probe=probes) for seed in (0, 1)]
    model, index = build_model(specs[0], digits).eval(), draw_probe_index(0, digits)
    with torch.no_grad():
        outs = torch.cat([model(digits.train.x[part]) for part in np.array_split(index.numpy(), 21)])
    metrics = next(iter(train_all(ENGINES[engine](specs, digits)).values())).metrics
    assert values_by_step(metrics, "", "output_size")[0] == pytest.approx(outs.square().mean().item(), rel=1e-4)
    loss = F.cross_entropy(outs, digits.train.y[index]).item()
    assert values_by_step(metrics, "", "train_loss")[0] == pytest.approx(loss, rel=1e-5)


def test_the_batch_of_an_evaluation_is_that_of_training_by_default():
    assert spec_of(BY_BATCH, "batch_size=16").evaluation.batch_size == 16
    assert spec_of(BY_BATCH, "batch_size=16", "evaluation.batch_size=16") == spec_of(BY_BATCH, "batch_size=16")
    ids = {spec_of(BY_BATCH, f"evaluation.batch_size={size}").run_id for size in (16, 64, "null")}
    assert ids == {spec_of(BY_BATCH, f"evaluation.batch_size={size}").run_id for size in (16, 64)}


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "ghost", "weight"])
def test_the_batch_of_an_evaluation_is_no_part_of_a_run_whose_norm_does_not_use_it(norm):
    spec = spec_of(f"norm={norm}", "evaluation.batch_size=16")
    assert spec.evaluation.batch_size is None
    assert "batch_size" not in to_dict(spec)["evaluation"]
    assert spec.run_id == spec_of(f"norm={norm}").run_id


@dataclass(frozen=True)
class Own(NoNorm):
    evaluates_by_batch = True


def test_a_norm_of_the_user_can_say_that_it_evaluates_by_batch():
    assert replace(spec_of(), norm=Own()).evaluation.batch_size == 64


@engines
@pytest.mark.parametrize(
    ("spec", "sizes", "sentence"),
    [
        (spec_of(BY_BATCH, "evaluation.images=1"), {}, "evaluation.images=1 is not allowed: it must be at least 2"),
        (spec_of(BY_BATCH, "evaluation.batch_size=1"), {}, "evaluation.batch_size=1 is .* at least 2"),
        (spec_of(BY_BATCH, "batch_size=2"), {"test": 31}, "evaluation.batch_size=2 .* at least 3 .* the 31 images"),
        (spec_of(BY_BATCH, "batch_size=2"), {"train": 255}, "evaluation.batch_size=2 .* at least 3 .* 255 images"),
        (spec_of(BY_BATCH), {"val": 1}, "A validation split of a single image is not allowed with norm=BatchNorm"),
    ],
)
def test_a_batch_of_a_single_image_is_refused_by_both_engines(engine, spec: RunSpec, sizes, sentence, digits):
    with pytest.raises(ConfigError, match=sentence):
        ENGINES[engine]([spec, replace(spec, seed=1)], with_splits(digits, **sizes))


@engines
def test_batches_of_two_images_are_evaluated_and_single_images_with_running_statistics(engine, digits):
    for spec, sizes in ((spec_of(BY_BATCH, "batch_size=2"), {}), (spec_of("evaluation.images=1"), {"val": 1})):
        assert train_all(ENGINES[engine]([spec], with_splits(digits, **sizes)))


def test_no_batch_that_passes_the_check_is_a_single_image(digits):
    for size in range(1, 9):
        for n in range(2, 40):
            parts = torch.arange(n).tensor_split(-(-n // size))
            spec = replace(spec_of(BY_BATCH), evaluation=Evaluation(batch_size=size))
            is_refused = False
            try:
                ENGINES["serial"]([spec], with_splits(digits, val=n, train=64, test=n))
            except ConfigError:
                is_refused = True
            assert is_refused == (min(map(len, parts)) == 1), (size, n)
