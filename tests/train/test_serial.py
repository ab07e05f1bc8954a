from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bnstudy.data.batches import BatchStream
from bnstudy.data.dataset import Split
from bnstudy.models.structure import norm_parameters
from bnstudy.probes import network
from bnstudy.run import Evaluation, RunSpec
from bnstudy.train import loop
from bnstudy.train.build import build_model
from bnstudy.train.loop import Training, start_serial, start_stacked
from bnstudy.when import At
from tests.conftest import CPU, spec_of
from tests.train.helpers import (
    ENGINES,
    assert_identical,
    train_all,
    train_one,
    train_serial,
    values_by_step,
)

GOLDEN_LOSSES = [2.82088, 2.48835, 2.15521, 1.92331, 1.59899]
GOLDEN_ACCURACY = 0.96379


def train(spec: RunSpec, digits) -> Training:
    training = start_serial(spec, digits, CPU)
    train_one(training)
    return training


def scores(model: torch.nn.Module, split: Split, images: int | None = None) -> tuple[float, float]:
    """Loss and accuracy in evaluation mode, in plain PyTorch."""
    with torch.no_grad():
        out, y = model.eval()(split.x[:images]), split.y[:images]
    return F.cross_entropy(out, y).item(), (out.argmax(1) == y).float().mean().item()


@pytest.mark.parametrize("model", ["mlp", "vgg", "resnet"])
@pytest.mark.parametrize(("norm", "trained"), [("none", "all"), ("batch", "all"), ("batch", "norm")])
def test_training_equals_a_plain_pytorch_loop(model, norm, trained, digits):
    choices = (f"model={model}", f"norm={norm}", f"trained={trained}", "optim.momentum=0.9", "schedule=cosine")
    spec = spec_of(*choices, "steps=5")
    outcome = train_serial(spec, digits)

    net, batches = build_model(spec, digits), BatchStream(digits, "none", spec.batch_size, spec.seed)
    chosen = [p for name, p in net.named_parameters() if trained == "all" or name in norm_parameters(net)]
    optimizer = torch.optim.SGD(chosen, lr=spec.lr, momentum=0.9)
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
    assert list(values_by_step(outcome.metrics, "train", "loss").values()) == pytest.approx(losses, rel=1e-4)
    assert outcome.final["test_accuracy"] == pytest.approx(scores(net, digits.test)[1], abs=2 / len(digits.test))


def test_a_golden_run_stays_the_same(digits):
    """Digits MLP with batch norm. A change here changes the meaning of run_ids, and needs a new SCHEMA."""
    training = start_serial(spec_of("steps=100"), digits, CPU)
    outcome = train_one(training)
    assert training.record.losses[:5, 0].tolist() == pytest.approx(GOLDEN_LOSSES, rel=1e-3)
    assert outcome.final["test_accuracy"] == pytest.approx(GOLDEN_ACCURACY, abs=0.01)


def test_equal_specs_give_identical_metrics(digits):
    spec = spec_of("data.augment=crop_flip")
    assert_identical(*(train_serial(spec, digits) for _ in range(2)))


def test_arms_share_batches_and_initial_weights_of_a_seed(digits):
    engines = [
        start_serial(spec_of(f"norm={norm}", "data.augment=crop_flip", "seed=2"), digits, CPU).engine
        for norm in ("none", "batch")
    ]
    for step in (0, 7, 40):
        (x0, y0), (x1, y1) = (engine.batch(step) for engine in engines)
        assert torch.equal(x0, x1)
        assert torch.equal(y0, y1)
    first, second = (engine.by_name(engine.params) for engine in engines)
    weights = [name for name in first if name.endswith("weight.weight")]
    assert len(weights) == 4
    assert all(torch.equal(first[name], second[name]) for name in weights)


def test_evaluation_and_probes_follow_their_schedules(digits):
    spec = replace(spec_of("steps=20"), evaluation=Evaluation(At((0, 7))))
    metrics = train_serial(spec, digits).metrics
    assert list(values_by_step(metrics, "val", "accuracy")) == [0, 7, 20]
    assert list(values_by_step(metrics, "test", "loss")) == [0, 7, 20]
    assert list(values_by_step(metrics, "train", "loss")) == list(range(20))
    for metric, probe in (("grad_norm", "gradients"), ("dead_share", "dead_units")):
        assert tuple(values_by_step(metrics, "", metric)) == spec.probe[probe].when.resolve(20)


def test_only_the_final_evaluation_uses_all_images(digits):
    spec = replace(spec_of("steps=20"), evaluation=Evaluation(At((0,)), images=50))
    training = train(spec, digits)
    for step, model, images in ((0, build_model(spec, digits), 50), (20, training.engine.model, None)):
        for split in ("val", "test"):
            loss, accuracy = scores(model, getattr(digits, split), images)
            assert training.record.latest(0, split, "loss", step) == pytest.approx(loss, rel=1e-5)
            assert training.record.latest(0, split, "accuracy", step) == pytest.approx(accuracy)
    assert torch.bincount(digits.test.y[:50], minlength=10).tolist() == [5] * 10


@pytest.mark.parametrize("part", [7, 1000])
def test_a_run_records_which_test_images_its_final_network_classifies_correctly(digits, monkeypatch, part):
    monkeypatch.setattr(network, "PART", part)
    spec = replace(spec_of("steps=60"), evaluation=Evaluation(At((0, 30)), images=None))
    training = start_serial(spec, digits, CPU)
    outcome = train_one(training)
    with torch.no_grad():
        correct = training.engine.model.eval()(digits.test.x).argmax(1) == digits.test.y
    assert outcome.test_correct.tolist() == correct.tolist()
    assert outcome.test_correct.mean() == pytest.approx(outcome.final["test_accuracy"], rel=1e-6)
    assert 0.5 < outcome.test_correct.mean() < 1


def test_a_regression_on_labels_records_correct_images_and_one_on_values_none(digits, tmp_path):
    one_hot = train_serial(spec_of("loss=mse", "loss.summed=true", "lr=0.01"), digits)
    assert one_hot.test_correct.mean() == pytest.approx(one_hot.final["test_accuracy"], rel=1e-6)
    spec = spec_of("data=gaussian", "data.target=linear", "loss=mse", "lr=0.01")
    assert train_serial(spec, spec.data.load(tmp_path, CPU)).test_correct is None


def test_gradient_norms_are_of_the_next_training_batch(digits):
    spec = spec_of("norm=none", "steps=3")
    measured = values_by_step(train_serial(spec, digits).metrics, "", "grad_norm")
    net, batches = build_model(spec, digits), BatchStream(digits, "none", spec.batch_size, spec.seed)
    for step in range(4):  # the last one is of the batch that would come next
        x, y = batches(step)
        grads = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
        assert measured[step] == pytest.approx(math.sqrt(sum(float(g.square().sum()) for g in grads)), rel=1e-4)
        with torch.no_grad():
            for p, g in zip(net.parameters(), grads, strict=True):
                p -= spec.lr * g


def test_update_ratios_of_plain_sgd_are_lr_times_gradient_over_weight(digits):
    table = train_serial(spec_of("norm=batch", "lr=0.3", "steps=5"), digits).metrics.to_pandas()
    table = table[table.metric.isin(["grad_norm", "weight_norm", "update_ratio"])]
    for step in range(6):
        at = table[table.step == step].pivot(index="layer", columns="metric", values="value")
        layers = ["", "hidden1", "out"]
        expected = 0.3 * at.grad_norm[layers] / at.weight_norm[layers]
        assert at.update_ratio[layers].tolist() == pytest.approx(expected.tolist(), rel=1e-3)


def test_a_diverged_run_ends_early_and_keeps_its_earlier_metrics(digits):
    outcome = train_serial(spec_of("norm=none", "lr=1000", "steps=200"), digits)
    losses = values_by_step(outcome.metrics, "train", "loss")
    assert outcome.status == "diverged"
    assert max(losses) == outcome.diverged_step < 100
    assert all(math.isfinite(value) for step, value in losses.items() if step < outcome.diverged_step)
    assert outcome.metrics.to_pandas().step.max() == outcome.diverged_step
    assert outcome.test_correct is None


def test_a_run_whose_last_step_diverges_records_no_correct_images(digits):
    training = start_serial(spec_of("steps=5"), digits, CPU)
    step = training.engine.step_with_grads
    training.engine.step_with_grads = lambda t: (step(t)[0] * (math.nan if t == 4 else 1), step(t)[1])
    outcome = train_one(training)
    assert (outcome.diverged_step, outcome.test_correct) == (4, None)


def test_a_run_that_did_not_learn_records_correct_images(digits):
    outcome = train_serial(spec_of("lr=1e-8"), digits)
    assert (outcome.status, outcome.learned, outcome.diverged_step) == ("finished", False, None)
    assert outcome.test_correct.mean() == pytest.approx(outcome.final["test_accuracy"], rel=1e-6)


@pytest.mark.parametrize(("above", "learned"), [(0.049, False), (0.051, True)])
def test_a_run_learned_that_ends_five_points_above_guessing_on_validation(digits, monkeypatch, above, learned):
    accuracy = digits.guessing["val"] + above
    accuracies = {id(digits.val): accuracy, id(digits.test): 0.9 - accuracy}

    def evaluate(_engine, split, *_):
        return {"loss": torch.tensor(1.0), "accuracy": torch.tensor(accuracies[id(split)])}, None

    monkeypatch.setattr(loop, "evaluate", evaluate)
    assert train_serial(spec_of("steps=5"), digits).learned is learned


def test_the_best_accuracy_is_chosen_on_validation(digits):
    """With the two splits swapped the choice follows validation; test is only looked up."""
    swapped = replace(digits, val=digits.test, test=digits.val)
    for data in (digits, swapped):
        outcome = train_serial(spec_of("steps=60"), data)
        val, test = (values_by_step(outcome.metrics, split, "accuracy") for split in ("val", "test"))
        assert outcome.best["val_accuracy"] == max(val.values())
        assert outcome.best["step"] == next(step for step, value in val.items() if value == max(val.values()))
        assert outcome.best["test_accuracy"] == test[outcome.best["step"]]


def test_bf16_differs_from_fp32_by_its_rounding(digits):
    full, half = (train_serial(spec_of(f"precision={p}", "steps=60"), digits) for p in ("fp32", "bf16"))
    assert half.final["test_accuracy"] > 0.8
    losses, rounded = (list(values_by_step(o.metrics, "train", "loss").values()) for o in (full, half))
    assert losses != rounded
    assert rounded[:10] == pytest.approx(losses[:10], rel=0.1)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_under_autocast_the_loss_is_in_float32(engine, loss, digits):
    specs = [spec_of(f"loss={loss}", "precision=bf16", "steps=1", "probe=none", f"seed={seed}") for seed in (0, 1)]
    training = ENGINES[engine](specs, digits)
    x, y = BatchStream(digits, "none", 64, 0)(0)
    with torch.autocast("cpu", torch.bfloat16):
        out = build_model(specs[0], digits)(x)
    wide = out.double()
    expected = F.cross_entropy(wide, y) if loss == "cross_entropy" else F.mse_loss(wide, F.one_hot(y, 10).double())
    found = training.engine.step(0)
    assert found.dtype == torch.float32
    # The outputs of a stack are rounded to bf16 in another order. A loss in bf16 would be 1e-3 off.
    assert found.reshape(-1)[0].item() == pytest.approx(expected.item(), rel=1e-4)


def test_norms_without_running_statistics_and_parameters_train(tmp_path):
    spec = spec_of(
        "norm.affine=false", "norm.track_running_stats=false", "data.train_size=1025", "evaluation.images=257"
    )
    assert train_serial(spec, spec.data.load(tmp_path, CPU)).status == "finished"


def test_the_warm_up_step_changes_nothing(digits, monkeypatch):
    """Its time counts as starting."""
    spec = spec_of("norm=batch", "model.dropout=0.2", "optim.momentum=0.9", "steps=4")
    warmed = train_serial(spec, digits)
    assert warmed.seconds["starting"] > 0
    monkeypatch.setattr(Training, "_warm_up", lambda self: None)
    assert_identical(train_serial(spec, digits), warmed)


@pytest.mark.parametrize("start", [start_serial, lambda spec, *rest: start_stacked([spec, spec], *rest)])
def test_a_rate_for_a_reference_batch_size_is_in_proportion_to_the_batch_size(start, digits):
    scaled = spec_of("batch_size=16", "lr=0.2", "schedule.reference_batch=64", "steps=5")
    same = spec_of("batch_size=16", "lr=0.05", "steps=5")
    ours, theirs = (next(iter(train_all(start(spec, digits, CPU)).values())) for spec in (scaled, same))
    assert_identical(ours, theirs)
    assert [*values_by_step(ours.metrics, "", "lr").values()] == pytest.approx([0.05] * 6)
