from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from bnstudy.norms.batch import BatchNorm
from bnstudy.norms.none import NoNorm
from bnstudy.optim import SGD, Adam, Step
from bnstudy.store.renames import with_former_names
from bnstudy.validation import ConfigError, stackable_numbers, to_dict
from bnstudy.when import At, AtEnd, AtFractions, Every, LogSpaced, LogThenRegular
from tests.conftest import spec_of


def test_values_are_converted_only_where_nothing_is_lost():
    assert SGD(momentum=0).momentum == 0.0
    assert isinstance(SGD(momentum=0).momentum, float)
    assert Step(milestones=[0.25]).milestones == (0.25,)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: BatchNorm(eps="small"), "norm.eps=small is not allowed: it must be a finite number."),
        (lambda: BatchNorm(eps=True), "norm.eps=true is not allowed: it must be a finite number."),
        (lambda: BatchNorm(affine=1), "norm.affine=1 is not allowed: it must be true or false."),
        (
            lambda: BatchNorm(position="befor"),
            "norm.position=befor is not allowed: it must be one of before, after; did you mean before?",
        ),
        (lambda: SGD(momentum=1.5), "optim.momentum=1.5 is not allowed: it must be in [0, 1)."),
    ],
)
def test_wrong_values_are_refused_with_key_value_and_what_is_allowed(make, sentence):
    with pytest.raises(ConfigError) as error:
        make()
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (AtEnd(), (100,)),
        (At((0, 1, 500)), (0, 1, 100)),
        (Every(40), (0, 40, 80, 100)),
        (AtFractions((0.5, 0, 0.101)), (0, 10, 50, 100)),
        (LogSpaced(3), (0, 1, 10, 100)),
        (LogThenRegular(early=2, regular=4), (0, 1, 25, 50, 75, 100)),
    ],
)
def test_measured_steps_are_sorted_and_include_the_last(when, expected):
    assert when.resolve(100) == expected


@pytest.mark.parametrize("total", [1, 2, 3, 17])
def test_measured_steps_of_short_runs_are_sorted_and_include_the_last(total):
    for when in (AtEnd(), Every(5), LogSpaced(20), LogThenRegular()):
        steps = when.resolve(total)
        assert list(steps) == sorted(set(steps))
        assert steps[-1] == total


def test_the_run_id_is_the_hash_of_the_canonical_json_with_every_default():
    spec = spec_of()
    text = json.dumps({"schema": 1, "spec": with_former_names(to_dict(spec))}, sort_keys=True, separators=(",", ":"))
    assert spec.run_id == hashlib.sha256(text.encode()).hexdigest()[:12]
    assert '"eps":1e-05' in text


def test_the_run_id_changes_only_with_the_run():
    spec = spec_of()
    assert replace(spec, seed=1).run_id != spec.run_id
    assert replace(spec, norm=NoNorm()).run_id != spec.run_id
    assert replace(spec, data=replace(spec.data, root="/elsewhere")).run_id == spec.run_id


def test_the_usual_scale_of_pixels_is_left_out_of_the_run_id():
    plain, named, unit = (spec_of(*words) for words in ((), ("data.scale=standardized",), ("data.scale=unit",)))
    assert plain == named
    assert "scale" not in to_dict(plain)["data"]
    assert unit.run_id != plain.run_id


def test_an_alias_of_an_init_gives_the_same_run_id():
    assert spec_of("init=kaiming").run_id == spec_of("init=kaiming_normal").run_id


@pytest.mark.parametrize(
    ("epochs", "steps", "found"), [(None, None, "neither is given"), (2, 5, "epochs=2 and steps=5 are both given")]
)
def test_a_run_needs_either_epochs_or_steps(epochs, steps, found):
    with pytest.raises(ConfigError, match=found):
        replace(spec_of(), epochs=epochs, steps=steps)


def test_epochs_consist_of_whole_batches():
    spec = spec_of("epochs=2", "batch_size=64")
    assert spec.total_steps(train_size=1150) == 2 * 17
    with pytest.raises(ConfigError, match="batch_size=64 is not allowed: it must be at most 50"):
        spec.total_steps(train_size=50)


@pytest.mark.parametrize("length", ["steps=100", "epochs=10"])  # 10 steps an epoch
def test_a_warm_up_longer_than_training_is_refused(length):
    assert spec_of(length, "batch_size=5", "schedule.warmup=100").total_steps(50) == 100
    with pytest.raises(
        ConfigError, match=r"schedule\.warmup=101 is not allowed: it must be at most the 100 steps .*lr=3"
    ):
        spec_of(length, "batch_size=5", "schedule.warmup=101", "lr=3").total_steps(50)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "step"])
@pytest.mark.parametrize("warmup", [0, 7, 20])
def test_every_schedule_reaches_lr(schedule, warmup):
    schedule = spec_of(f"schedule={schedule}", f"schedule.warmup={warmup}").schedule
    assert max(schedule.factor(t, 20) for t in range(20)) == 1


RICH = ("optim.momentum=0.9", "optim.nesterov=true", "optim.weight_decay=0.1", "model.dropout=0.1")
"""A run whose stackable numbers are all nonzero."""


@pytest.mark.parametrize(
    "change",
    [
        *("seed=7", "lr=3", "init=orthogonal", "init.gain=2", "schedule=cosine", "schedule.warmup=5"),
        *("optim.momentum=0.5", "optim.weight_decay=1", "norm.eps=1", "norm.momentum=0.5", "model.dropout=0.5"),
    ],
)
def test_runs_that_differ_in_numbers_share_a_stack_key(change):
    rich, other = spec_of(*RICH), spec_of(*RICH, change)
    assert other.run_id != rich.run_id
    assert other.stack_key == rich.stack_key


@pytest.mark.parametrize(
    "change",
    [
        *("batch_size=16", "steps=21", "precision=bf16", "trained=norm", "data.augment=crop_flip", "model.width=64"),
        *("probe=none", "probe.gradients.when.early=5", "evaluation.images=5", "norm=layer", "norm.position=after"),
        *("norm.affine=false", "norm.track_running_stats=false", "optim.nesterov=false"),
        # A number that is 0 or null changes the computation.
        *("optim.weight_decay=0", "model.dropout=0", "norm.momentum=null"),
    ],
)
def test_runs_whose_computation_differs_have_different_stack_keys(change):
    assert spec_of(*RICH, change).stack_key != spec_of(*RICH).stack_key


def test_optimizers_have_different_stack_keys():
    assert spec_of("optim=adam").stack_key != spec_of("optim=sgd").stack_key


def test_the_data_folder_does_not_change_the_stack_key():
    assert spec_of("data.root=/elsewhere").stack_key == spec_of().stack_key


def test_stackable_numbers_are_marked_per_run_and_nonzero():
    assert stackable_numbers(SGD(momentum=0.9)) == {"momentum": 0.9}
    assert stackable_numbers(Adam(weight_decay=0.1)) == {"weight_decay": 0.1}
    assert stackable_numbers(BatchNorm(momentum=None)) == {"eps": 1e-5}
