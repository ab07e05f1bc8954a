"""Runs that stop early end with their best weights, in both engines, and also after a break."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bnstudy.run import EarlyStopping
from bnstudy.train.loop import start_serial, start_stacked
from bnstudy.validation import ConfigError
from bnstudy.when import AtEnd, Every
from tests.conftest import CPU, spec_of
from tests.train.helpers import assert_same_outcome, train_all, train_serial, train_until


def spec(*words, **changes):
    """A run that memorizes a few training images, so that its validation loss grows in the end."""
    base = spec_of("norm=none", "batch_size=8", "steps=300", "lr=0.2", "model.width=32", *words)
    evaluation = replace(base.evaluation, when=Every(10))
    return replace(base, **{"evaluation": evaluation, **changes})


def curve(outcome, metric="loss", split="val"):
    table = outcome.metrics.to_pandas()
    rows = table[(table["split"] == split) & (table["metric"] == metric) & (table["layer"] == "")]
    return dict(zip(rows["step"], rows["value"], strict=True))


def stop_by_hand(values: dict[int, float], patience: int) -> tuple[int, int]:
    """The step of the best evaluation and that at which the run stops, by counting."""
    best_step, since = 0, 0
    for step, value in values.items():
        since += 1
        if value < values[best_step] or step == 0:
            best_step, since = step, 0
        if since == patience:
            return best_step, step
    raise AssertionError("it does not stop")


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_stops_where_its_validation_loss_no_longer_improves(few, seed):
    whole = train_serial(spec(seed=seed), few)
    stopped = train_serial(spec(seed=seed, early_stopping=EarlyStopping(3)), few)
    best_step, step = stop_by_hand(curve(whole), 3)
    assert (stopped.best["step"], stopped.stopped_step) == (best_step, step)
    assert 0 < best_step < step < 300
    assert whole.stopped_step is None
    losses, all_losses = curve(stopped, split="train"), curve(whole, split="train")
    assert losses == {t: loss for t, loss in all_losses.items() if t < step}
    values, all_values = curve(stopped), curve(whole)
    assert [*values] == [t for t in all_values if t <= step]
    assert all(values[t] == all_values[t] for t in values if t < step)
    assert stopped.best["val_loss"] == min(values.values()) == all_values[best_step]


def test_the_final_metrics_are_those_of_a_run_that_ends_at_the_best_step(few):
    stopped = train_serial(spec(early_stopping=EarlyStopping(3)), few)
    shorter = train_serial(spec(steps=stopped.best["step"]), few)
    for name in ("val_loss", "val_accuracy", "test_loss", "test_accuracy"):
        assert stopped.final[name] == pytest.approx(shorter.final[name], rel=1e-6)
    assert np.array_equal(stopped.test_correct, shorter.test_correct)
    tables = [outcome.metrics.to_pandas() for outcome in (stopped, shorter)]
    table, expected = (frame.set_index(["metric", "layer", "step"])["value"].to_dict() for frame in tables)
    states = {key[:2] for key in expected if key[0] in ("w_norm", "dead_share")}
    assert states
    for key in states:
        assert table[(*key, stopped.stopped_step)] == pytest.approx(expected[(*key, stopped.best["step"])], rel=1e-5)


def test_without_best_weights_the_run_ends_as_it_is(few):
    stopped = train_serial(spec(early_stopping=EarlyStopping(3, best_weights=False)), few)
    shorter = train_serial(spec(steps=stopped.stopped_step), few)
    assert stopped.final == pytest.approx(shorter.final, rel=1e-6)
    assert stopped.best["step"] < stopped.stopped_step


def test_a_run_that_never_stops_also_ends_with_its_best_weights(few):
    patient = train_serial(spec(steps=150, early_stopping=EarlyStopping(1000)), few)
    assert patient.stopped_step is None
    shorter = train_serial(spec(steps=patient.best["step"]), few)
    assert patient.best["step"] < 150
    assert patient.final["val_loss"] == pytest.approx(shorter.final["val_loss"], rel=1e-6)
    assert max(curve(patient)) == 150


def test_the_highest_accuracy_may_decide(few):
    whole = train_serial(spec(), few)
    stopped = train_serial(spec(early_stopping=EarlyStopping(4, by="accuracy")), few)
    negative = {step: -value for step, value in curve(whole, "accuracy").items()}
    assert (stopped.best["step"], stopped.stopped_step) == stop_by_hand(negative, 4)


def several(**changes):
    return [spec(seed=seed, lr=lr, **changes) for seed in (0, 1) for lr in (0.05, 0.1, 0.2)]


def test_runs_of_a_stack_stop_each_at_its_own_step(few):
    specs = several(early_stopping=EarlyStopping(3))
    stacked = train_all(start_stacked(specs, few, CPU))
    assert len({outcome.stopped_step for outcome in stacked.values()}) > 2
    for one in specs:
        alone = train_serial(one, few)
        assert stacked[one.run_id].stopped_step == alone.stopped_step
        assert_same_outcome(stacked[one.run_id], alone, tolerance=1e-3)


@pytest.mark.parametrize("stacked", [False, True])
def test_a_run_that_goes_on_from_a_checkpoint_stops_with_the_same_numbers(few, stacked):
    specs = several(early_stopping=EarlyStopping(3))[: 6 if stacked else 1]

    def start():
        return start_stacked(specs, few, CPU) if stacked else start_serial(specs[0], few, CPU)

    whole = train_all(start())
    first = min(outcome.stopped_step for outcome in whole.values())
    broken = start()
    train_until(broken, first - 5)
    resumed = start()
    resumed.load([broken.state(run) for run in range(len(specs))])
    for run_id, outcome in train_all(resumed).items():
        assert outcome.metrics.equals(whole[run_id].metrics)
        assert (outcome.final, outcome.best) == (whole[run_id].final, whole[run_id].best)


def test_a_diverged_run_is_no_stopped_run(few):
    outcome = train_serial(spec(lr=1e6, early_stopping=EarlyStopping(1)), few)
    assert (outcome.status, outcome.stopped_step) == ("diverged", None)


def test_a_run_may_diverge_before_its_first_evaluation(few):
    one = spec(lr=1e6, early_stopping=EarlyStopping(1))
    outcome = train_serial(replace(one, evaluation=replace(one.evaluation, when=AtEnd())), few)
    assert (outcome.status, outcome.stopped_step) == ("diverged", None)
    assert math.isnan(outcome.best["val_loss"])


def test_a_value_that_is_not_a_number_is_the_worst():
    assert EarlyStopping(1).best([math.nan, 2.0, 1.0, 1.0, math.nan]) == 2
    assert EarlyStopping(1, by="accuracy").best([math.nan, 0.2, 0.4]) == 2
    assert EarlyStopping(1).best([math.nan, math.nan]) == 0


def test_early_stopping_is_off_by_default_and_then_no_part_of_the_identity():
    plain = spec_of()
    assert plain.early_stopping is None
    for off in (EarlyStopping(), EarlyStopping(by="accuracy", best_weights=False)):
        assert replace(plain, early_stopping=off).run_id == plain.run_id
    assert replace(plain, early_stopping=EarlyStopping(3)).run_id != plain.run_id
    assert spec_of("early_stopping.patience=3").early_stopping == EarlyStopping(3)


@pytest.mark.parametrize("patience", [0, -1])
def test_a_patience_below_one_is_refused(patience):
    with pytest.raises(ConfigError, match=f"early_stopping.patience={patience} is not allowed: it must be at least 1"):
        EarlyStopping(patience)
