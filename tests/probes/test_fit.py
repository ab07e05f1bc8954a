from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bnstudy.data.dataset import Split
from bnstudy.probes.fit import TrainingFit
from bnstudy.train.serial import SerialRun
from bnstudy.train.state import build_model, evaluate
from bnstudy.when import At, AtFractions
from tests.conftest import CPU, spec_of
from tests.probes.conftest import TINY, engines_agree, snapshot_of


def test_it_is_what_evaluation_mode_makes_of_the_probe_batch(digits):
    spec = spec_of(*TINY, "norm=batch", "model.dropout=0.5")
    snapshot, model = snapshot_of(spec, digits, double=False), build_model(spec, digits)
    model(digits.train.x[:100])  # moves the running statistics
    network = replace(snapshot.network, buffers=dict(model.named_buffers()))
    x, y = network.probe_batch()
    assert len(x) >= 1000
    out = model.eval()(x)
    measured = TrainingFit().measure(replace(snapshot, network=network))
    torch.testing.assert_close(measured["train_loss"][""], F.cross_entropy(out, y))
    assert measured["train_accuracy"][""].item() == pytest.approx(sum(out.argmax(1) == y).item() / len(y))


def test_at_the_end_it_is_the_evaluation_of_the_trained_network(digits):
    spec = replace(spec_of("norm=batch", "model.width=16"), probe={"fit": TrainingFit(when=AtFractions((0.0, 1.0)))})
    run, outcomes = SerialRun(spec, digits, CPU), []
    run.train(lambda _, outcome: outcomes.append(outcome))
    rows = outcomes[0].metrics.to_pandas().query("metric in ('train_loss', 'train_accuracy')")
    assert set(rows["step"]) == {0, 20}
    assert set(rows["layer"]) == {""}
    last = rows[rows["step"] == 20].set_index("metric")["value"]
    chosen = replace(digits.train, x=digits.train.x[run._probe_index], y=digits.train.y[run._probe_index])
    again = evaluate(run.model, chosen, spec.loss)
    assert last["train_loss"] == pytest.approx(float(again["loss"]), rel=1e-5)
    assert last["train_accuracy"] == pytest.approx(float(again["accuracy"]))


def test_without_running_statistics_no_image_is_left_alone(digits):
    """A norm would make its batch of one into zeros, or refuse it."""
    few = replace(digits, train=Split(digits.train.x[:257], digits.train.y[:257]))
    spec = spec_of(*TINY, "norm=batch", "norm.track_running_stats=false")
    snapshot, model = snapshot_of(spec, few, double=False), build_model(spec, few)
    x, y = snapshot.network.probe_batch()
    out = torch.cat([model(part) for part in (x[:129], x[129:])])
    measured = TrainingFit().measure(snapshot)
    torch.testing.assert_close(measured["train_loss"][""], F.cross_entropy(out, y))


def test_a_regression_has_a_loss_only(tmp_path):
    spec = spec_of("data=gaussian", "data.target=linear", "loss=mse", "model.width=8")
    dataset = spec.data.load(tmp_path, CPU)
    assert list(TrainingFit().measure(snapshot_of(spec, dataset, double=False))) == ["train_loss"]


@pytest.mark.parametrize(
    "overrides", [("norm=batch", "model.dropout=0.5"), ("model=vgg", "model.depth=8", "model.width=0.03", "norm=layer")]
)
def test_stacked_equals_serial(overrides, digits):
    engines_agree(TrainingFit(when=At((0, 6))), digits, *overrides)


def test_the_presets_measure_it_and_what_statistics_come_to():
    gap, statistics = spec_of("probe=gap").probe, spec_of("probe=statistics").probe
    assert gap.keys() - statistics.keys() == {"training_fit"}
    assert statistics.keys() - gap.keys() == {"norm_internals"}
    assert statistics["norm_internals"].when.resolve(100) == (100,)
    assert gap["training_fit"].when.resolve(100) == (0, 50, 100)
    assert spec_of().probe.keys() <= gap.keys()
