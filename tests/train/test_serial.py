from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bnstudy.data.batches import BatchStream
from bnstudy.run import Evaluation, RunSpec
from bnstudy.train import serial as serial_engine
from bnstudy.train.serial import SerialRun
from bnstudy.train.state import build_model, evaluate
from bnstudy.when import At, AtEnd
from tests.conftest import CPU, spec_of
from tests.train.courses import outcome, rows, serial, train_until

GOLDEN_LOSSES = [2.82088, 2.48835, 2.15521, 1.92331, 1.59899]
GOLDEN_ACCURACY = 0.96379


def trained(spec: RunSpec, digits) -> SerialRun:
    run = SerialRun(spec, digits, CPU)
    outcome(run)
    return run


@pytest.mark.parametrize("model", ["mlp", "vgg", "resnet"])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_training_is_what_a_plain_pytorch_loop_does(model, norm, digits):
    spec = spec_of(f"model={model}", f"norm={norm}", "optim.momentum=0.9", "schedule=cosine", "steps=5")
    ended = serial(spec, digits)

    net, batches = build_model(spec, digits), BatchStream(digits, "none", spec.batch_size, spec.seed)
    optimizer = torch.optim.SGD(net.parameters(), lr=spec.lr, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5)
    losses = []
    for step in range(5):
        x, y = batches(step)
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    assert list(rows(ended.metrics, "train", "loss").values()) == pytest.approx(losses, rel=1e-4)
    with torch.no_grad():
        accuracy = (net.eval()(digits.test.x).argmax(1) == digits.test.y).float().mean().item()
    assert ended.final["test_accuracy"] == pytest.approx(accuracy, abs=2 / len(digits.test))


def test_one_golden_run(digits):
    """Digits MLP with batch norm: a change here is a change of what run_ids stand for, and needs a new SCHEMA."""
    run = SerialRun(spec_of("steps=100"), digits, CPU)
    ended = outcome(run)
    assert run.record.losses[:5, 0].tolist() == pytest.approx(GOLDEN_LOSSES, rel=1e-3)
    assert ended.final["test_accuracy"] == pytest.approx(GOLDEN_ACCURACY, abs=0.01)


def test_the_same_spec_gives_the_same_metrics_bit_for_bit(digits):
    spec = spec_of("data.augment=crop_flip")
    first, second = (serial(spec, digits) for _ in range(2))
    assert first.metrics.equals(second.metrics)


def test_arms_of_a_seed_see_the_same_batches_and_begin_with_the_same_weights(digits):
    arms = [SerialRun(spec_of(f"norm={n}", "data.augment=crop_flip", "seed=2"), digits, CPU) for n in ("none", "batch")]
    for step in (0, 7, 40):
        (x0, y0), (x1, y1) = (arm.batches(step) for arm in arms)
        assert torch.equal(x0, x1)
        assert torch.equal(y0, y1)
    first, second = (arm._named(arm.params) for arm in arms)
    shared = [name for name in first if name.endswith("weight.weight")]
    assert len(shared) == 4
    assert all(torch.equal(first[name], second[name]) for name in shared)


def test_recording_changes_nothing(digits):
    """Neither probes nor evaluation touch weights, running statistics or random streams."""
    watched = trained(spec_of("probe=standard", "evaluation.when.regular=20"), digits)
    alone = trained(replace(spec_of("probe=none"), evaluation=Evaluation(AtEnd())), digits)
    assert torch.equal(watched.params[0], alone.params[0])
    assert torch.equal(watched.record.losses, alone.record.losses)
    for ours, theirs in zip(watched.model.buffers(), alone.model.buffers(), strict=True):
        assert torch.equal(ours, theirs)


def test_evaluation_and_probes_come_at_their_updates(digits):
    spec = replace(spec_of("steps=20"), evaluation=Evaluation(At((0, 7))))
    ended = serial(spec, digits)
    assert list(rows(ended.metrics, "val", "accuracy")) == [0, 7, 20]
    assert list(rows(ended.metrics, "test", "loss")) == [0, 7, 20]
    assert list(rows(ended.metrics, "train", "loss")) == list(range(20))
    for metric, probe in (("grad_norm", "gradients"), ("dead_share", "dead_units")):
        assert tuple(rows(ended.metrics, "", metric)) == spec.probe[probe].when.resolve(20)


def test_before_the_end_a_sample_of_the_images_is_evaluated_and_all_of_them_at_the_end(digits):
    spec = replace(spec_of("steps=20"), evaluation=Evaluation(At((20,)), images=50))
    run = trained(spec, digits)
    for split in ("val", "test"):
        for metric, value in evaluate(run.model, getattr(digits, split), spec.loss).items():
            assert run.record.latest(0, split, metric, 20) == value
    counts = torch.bincount(digits.test.y[:50], minlength=10)
    assert counts.tolist() == [5] * 10
    early = trained(replace(spec, evaluation=Evaluation(At((0,)), images=50)), digits)
    model = build_model(spec, digits)
    assert early.record.latest(0, "test", "accuracy", 0) == evaluate(model, digits.test, spec.loss, 50)["accuracy"]


def test_gradient_norms_are_those_of_the_batch_in_use(digits):
    spec = spec_of("norm=none", "steps=3")
    measured = rows(serial(spec, digits).metrics, "", "grad_norm")
    net, batches = build_model(spec, digits), BatchStream(digits, "none", spec.batch_size, spec.seed)
    for step in range(4):  # the last one is of the batch that would come next
        x, y = batches(step)
        grads = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
        assert measured[step] == pytest.approx(math.sqrt(sum(float(g.square().sum()) for g in grads)), rel=1e-4)
        with torch.no_grad():
            for p, g in zip(net.parameters(), grads, strict=True):
                p -= spec.lr * g


def test_a_diverging_run_ends_early_and_keeps_what_came_before(digits):
    spec = spec_of("norm=none", "lr=1000", "steps=200")
    ended = serial(spec, digits)
    losses = rows(ended.metrics, "train", "loss")
    assert ended.status == "diverged"
    assert max(losses) == ended.diverged_step < 100
    assert all(value <= 10 * losses[0] for step, value in losses.items() if step < ended.diverged_step)
    assert ended.metrics.to_pandas().step.max() == ended.diverged_step


def test_a_run_that_stays_at_chance_counts_as_diverged(digits):
    ended = serial(spec_of("lr=1e-9", "steps=5"), digits)
    assert ended.status == "diverged"
    assert "chance" in ended.diverged_because
    assert ended.diverged_step == 5


@pytest.mark.parametrize("optim", ["sgd", "adam"])
@pytest.mark.parametrize("at", [0, 3, 10, 19, 20])
def test_a_resumed_run_ends_bit_for_bit_as_if_it_had_never_stopped(optim, at, digits):
    spec = spec_of(f"optim={optim}", "lr=0.01", "data.augment=crop_flip", "steps=20")
    whole = serial(spec, digits)

    part = SerialRun(spec, digits, CPU)
    train_until(part, at)
    rest = SerialRun(spec, digits, CPU)
    rest.load([part.state()])
    ended = outcome(rest)
    assert ended.metrics.equals(whole.metrics)
    assert ended.final == whole.final


def test_update_ratios_of_plain_sgd_are_lr_times_gradient_over_weight(digits):
    spec = spec_of("norm=batch", "lr=0.3", "steps=5")
    table = serial(spec, digits).metrics.to_pandas()
    table = table[table.metric.isin(["grad_norm", "weight_norm", "update_ratio"])]
    for step in range(6):
        at = table[table.step == step].pivot(index="layer", columns="metric", values="value")
        layers = ["", "hidden1", "out"]
        by_hand = 0.3 * at.grad_norm[layers] / at.weight_norm[layers]
        assert at.update_ratio[layers].tolist() == pytest.approx(by_hand.tolist(), rel=1e-3)


def test_the_best_is_chosen_on_validation(digits):
    """The two splits swapped: the choice follows validation, and test is only looked up."""
    swapped = replace(digits, val=digits.test, test=digits.val)
    for data in (digits, swapped):
        ended = serial(spec_of("steps=60"), data)
        val, test = (rows(ended.metrics, split, "accuracy") for split in ("val", "test"))
        assert ended.best["val_accuracy"] == max(val.values())
        assert ended.best["step"] == next(step for step, value in val.items() if value == max(val.values()))
        assert ended.best["test_accuracy"] == test[ended.best["step"]]


@pytest.mark.parametrize(("accuracy", "status"), [(0.149, "diverged"), (0.151, "finished")])
def test_chance_ends_five_points_above_guessing_on_validation(digits, monkeypatch, accuracy, status):
    given = {id(digits.val): accuracy, id(digits.test): 0.9 - accuracy}
    monkeypatch.setattr(
        serial_engine,
        "evaluate",
        lambda _model, split, *_: {"loss": torch.tensor(1.0), "accuracy": torch.tensor(given[id(split)])},
    )
    assert serial(spec_of("steps=5"), digits).status == status


def test_bf16_trains_with_its_own_rounding(digits):
    full, half = (serial(spec_of(f"precision={p}", "steps=60"), digits) for p in ("fp32", "bf16"))
    assert half.final["test_accuracy"] > 0.8
    losses, rounded = (list(rows(o.metrics, "train", "loss").values()) for o in (full, half))
    assert losses != rounded
    assert rounded[:10] == pytest.approx(losses[:10], rel=0.1)


@pytest.mark.slow
def test_compiled_agrees_with_eager(digits, monkeypatch):
    compilations = []
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f: compilations.append(f) or original(f))
    spec = spec_of("steps=10")
    eager, compiled = (outcome(SerialRun(spec, digits, CPU, compiled=c)) for c in (False, True))
    assert compiled.final["train_loss"] == pytest.approx(eager.final["train_loss"], rel=1e-3)
    assert len(compilations) == 1


def test_norms_without_tracking_and_affine_train(tmp_path):
    spec = spec_of(
        "norm.affine=false", "norm.track_running_stats=false", "data.train_size=1025", "evaluation.images=257"
    )
    assert serial(spec, spec.data.load(tmp_path, CPU)).status == "finished"


def test_the_first_update_is_warmed_up_and_nothing_of_it_stays(digits, monkeypatch):
    """What torch loads with it is charged to starting; the course is that without a warm-up."""
    spec = spec_of("norm=batch", "model.dropout=0.2", "optim.momentum=0.9", "steps=4")
    warmed = serial(spec, digits)
    assert warmed.seconds["starting"] > 0
    monkeypatch.setattr(SerialRun, "_warm_up", lambda self: None)
    assert serial(spec, digits).metrics.equals(warmed.metrics)
