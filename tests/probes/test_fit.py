from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bnstudy.data.dataset import Split
from bnstudy.probes.fit import TrainingFit
from bnstudy.train.build import build_model
from bnstudy.train.loop import start_serial
from bnstudy.when import AtFractions
from tests.conftest import CPU, spec_of
from tests.probes.conftest import TINY, changed, snapshot_of
from tests.train.helpers import train_one


def test_the_fit_is_measured_on_the_probe_batch_in_evaluation_mode(digits):
    spec = spec_of(*TINY, "norm=batch", "model.dropout=0.5")
    snapshot, model = snapshot_of(spec, digits, double=False), build_model(spec, digits)
    model(digits.train.x[:100])  # moves the running statistics
    network = replace(snapshot.network, buffers=dict(model.named_buffers()))
    x, y = network.probe_batch()
    assert len(x) >= 1000
    out = model.eval()(x)
    measured = TrainingFit().measure(changed(snapshot, network=network))
    torch.testing.assert_close(measured["train_loss"][""], F.cross_entropy(out, y))
    assert measured["train_accuracy"][""].item() == pytest.approx(sum(out.argmax(1) == y).item() / len(y))


def test_the_last_fit_is_that_of_the_trained_network(digits):
    spec = replace(spec_of("norm=batch", "model.width=16"), probe={"fit": TrainingFit(when=AtFractions((0.0, 1.0)))})
    training = start_serial(spec, digits, CPU)
    rows = train_one(training).metrics.to_pandas().query("metric in ('train_loss', 'train_accuracy')")
    assert set(rows["step"]) == {0, 20}
    assert set(rows["layer"]) == {""}
    last = rows[rows["step"] == 20].set_index("metric")["value"]
    chosen = training.engine.probe_index
    out, y = training.engine.model.eval()(digits.train.x[chosen]), digits.train.y[chosen]
    assert last["train_loss"] == pytest.approx(F.cross_entropy(out, y).item(), rel=1e-5)
    assert last["train_accuracy"] == pytest.approx((out.argmax(1) == y).float().mean().item())


def test_without_running_statistics_the_fit_is_of_batches_of_the_evaluation(digits):
    few = replace(digits, train=Split(digits.train.x[:257], digits.train.y[:257]))
    spec = spec_of(*TINY, "norm=batch", "norm.track_running_stats=false", "evaluation.batch_size=100")
    snapshot, model = snapshot_of(spec, few, double=False), build_model(spec, few)
    x, y = snapshot.network.probe_batch()
    out = torch.cat([model(part) for part in (x[:86], x[86:172], x[172:])])
    measured = TrainingFit().measure(snapshot)
    torch.testing.assert_close(measured["train_loss"][""], F.cross_entropy(out, y))


def test_a_regression_has_a_training_loss_and_no_accuracy(tmp_path):
    spec = spec_of("data=gaussian", "data.target=linear", "loss=mse", "model.width=8")
    dataset = spec.data.load(tmp_path, CPU)
    assert list(TrainingFit().measure(snapshot_of(spec, dataset, double=False))) == ["train_loss"]
