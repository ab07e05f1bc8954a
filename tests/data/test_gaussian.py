from __future__ import annotations

import pytest
import torch

from bnstudy.data.batches import BatchStack
from bnstudy.data.gaussian import Gaussian
from bnstudy.train.loop import start_serial, start_stacked
from bnstudy.validation import ConfigError
from tests.conftest import CPU, spec_of
from tests.train.helpers import train_all, train_one


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"classes": 1}, "data.classes=1 is not allowed: it must be 2 or more"),
        ({"draw": 2**63}, "data.draw=9223372036854775808 is not allowed"),
        (
            {"dim": 10**9},
            "Data with data.samples=1280, .*data.dim=1000000000, data.classes=10 needs 12,000 GB of memory",
        ),
        ({"samples": 10**12}, "needs .* GB of memory; this machine has"),
        ({"scale": "unit"}, "data.scale=unit is not allowed: it must be standardized"),
        ({"classes": 10**11, "target": "linear"}, "needs .* GB of memory"),
    ],
)
def test_data_that_cannot_be_made_is_refused(fields, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load(**fields)


def test_a_linear_target_may_be_one_number():
    assert load(classes=1, target="linear").train.y.shape == (1024, 1)


def load(**fields):
    return Gaussian(**fields).load(None, CPU)


def test_inputs_are_standard_normal_and_splits_have_the_requested_sizes():
    data = load(dim=7, samples=5000, test_size=1000)
    assert [len(split) for split in (data.train, data.val, data.test)] == [4000, 1000, 1000]
    assert data.train.x.shape == (4000, 1, 1, 7)
    assert data.train.x.dtype == torch.float32
    assert data.train.x.mean().abs() < 0.02
    torch.testing.assert_close(data.train.x.flatten(1).T.cov(), torch.eye(7), atol=0.1, rtol=0)


def test_labels_are_uniform_and_independent_of_the_input():
    data = load(samples=20000, classes=4)
    assert data.is_labelled
    torch.testing.assert_close(data.train.y.bincount() / 16000, torch.full((4,), 0.25), atol=0.02, rtol=0)
    means = torch.stack([data.train.x[data.train.y == label].mean((0, 1, 2)) for label in range(4)])
    assert means.abs().max() < 0.06


def test_linear_targets_are_the_same_matrix_times_the_input_in_every_split():
    data = load(dim=5, classes=3, target="linear")
    assert not data.is_labelled
    assert data.train.y.shape == (1024, 3)
    a = torch.linalg.lstsq(data.train.x.flatten(1), data.train.y).solution
    for split in (data.train, data.val, data.test):
        torch.testing.assert_close(split.y, split.x.flatten(1) @ a, atol=1e-4, rtol=1e-4)


def test_the_data_are_a_function_of_the_fields():
    first, second, other = load(), load(), load(draw=1)
    assert torch.equal(first.train.x, second.train.x)
    assert first.checksum == second.checksum != other.checksum
    assert torch.equal(load(train_size=100).train.x, first.train.x[:100])


def test_the_checksum_does_not_depend_on_rounding_but_on_each_setting_that_draws(monkeypatch):
    before, draw = load().checksum, Gaussian._draw
    assert load(train_size=100, val_fraction=0.5).checksum == before
    changes = {"dim": 3, "classes": 3, "target": "linear", "samples": 500, "test_size": 9, "draw": 7}
    assert len({before, *(load(**{name: value}).checksum for name, value in changes.items())}) == 1 + len(changes)
    monkeypatch.setattr(Gaussian, "_draw", lambda spec: (draw(spec)[0] * (1 + 2**-20), draw(spec)[1]))
    assert load().checksum == before


def test_the_inputs_do_not_depend_on_the_kind_of_target():
    def inputs(target):
        data = load(target=target)
        return torch.cat([data.train.x, data.val.x]).flatten(1).sum(1).sort().values

    assert torch.equal(inputs("labels"), inputs("linear"))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"augment": "crop_flip"}, "data.augment=crop_flip is not allowed: it must be none"),
        ({"dim": 0}, "data.dim=0 is not allowed: it must be 1 or more"),
        ({"samples": 100, "train_size": 81}, "data.train_size=81 is not allowed: it must be at most 80"),
    ],
)
def test_fields_of_gaussian_out_of_range_are_refused(fields, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Gaussian(**fields)


REGRESSION = ("data=gaussian", "data.target=linear", "loss=mse", "model.width=8", "batch_size=32", "lr=0.05")


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_both_engines_train_the_same_regression_without_accuracy(norm):
    specs = [spec_of(*REGRESSION, f"norm={norm}", f"seed={seed}", "steps=12") for seed in (0, 1)]
    data = specs[0].data.load(None, CPU)
    alone = [train_one(start_serial(spec, data, CPU)) for spec in specs]
    together = train_all(start_stacked(specs, data, CPU))
    for spec, serial in zip(specs, alone, strict=True):
        stacked = together[spec.run_id]
        assert serial.status == stacked.status == "finished"
        a, b = (outcome.metrics.to_pandas() for outcome in (serial, stacked))
        assert "accuracy" not in set(a["metric"])
        torch.testing.assert_close(torch.tensor(a["value"]), torch.tensor(b["value"]), rtol=1e-4, atol=1e-5)
        assert serial.final["test_loss"] == pytest.approx(stacked.final["test_loss"], rel=1e-4)
        assert torch.tensor(serial.final["test_accuracy"]).isnan()


def test_batches_of_a_stack_pair_inputs_with_their_targets():
    data = load(target="linear", classes=2, dim=3)
    stack = BatchStack(data, "none", 4, [0, 1])
    x, y = stack.gather(*stack.select(0))
    assert (x.shape, y.shape) == ((2, 4, 1, 1, 3), (2, 4, 2))
    a = torch.linalg.lstsq(data.train.x.flatten(1), data.train.y).solution
    torch.testing.assert_close(y, x.flatten(2) @ a, atol=1e-4, rtol=1e-4)
