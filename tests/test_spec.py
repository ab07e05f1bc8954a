from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from bnstudy.norms import BatchNorm, NoNorm
from bnstudy.optim import SGD, Step
from bnstudy.spec import At, AtEnd, ConfigError, Every, LogSpaced, LogThenRegular, to_dict
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
        (lambda: BatchNorm(position="befor"), "norm.position=befor is not allowed: it must be one of before, after"),
        (lambda: SGD(momentum=1.5), "optim.momentum=1.5 is not allowed: it must be in [0, 1)."),
    ],
)
def test_wrong_values_are_refused_with_key_value_and_what_is_allowed(make, sentence):
    with pytest.raises(ConfigError) as error:
        make()
    assert str(error.value).startswith(sentence)


def test_a_misspelt_choice_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean before"):
        BatchNorm(position="befor")


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (AtEnd(), (100,)),
        (At((0, 1, 500)), (0, 1, 100)),
        (Every(40), (0, 40, 80, 100)),
        (LogSpaced(3), (0, 1, 10, 100)),
        (LogThenRegular(early=2, regular=4), (0, 1, 25, 50, 75, 100)),
    ],
)
def test_schedules_name_sorted_updates_and_always_the_last(when, expected):
    assert when.updates(100) == expected


@pytest.mark.parametrize("total", [1, 2, 3, 17])
def test_schedules_hold_for_short_runs(total):
    for when in (AtEnd(), Every(5), LogSpaced(20), LogThenRegular()):
        updates = when.updates(total)
        assert list(updates) == sorted(set(updates))
        assert updates[-1] == total


def test_the_run_id_is_the_hash_of_the_canonical_json_with_every_default():
    spec = spec_of()
    text = json.dumps({"schema": 1, "spec": to_dict(spec)}, sort_keys=True, separators=(",", ":"))
    assert spec.run_id == hashlib.sha256(text.encode()).hexdigest()[:12]
    assert '"eps":1e-05' in text


def test_the_run_id_changes_with_the_run_and_with_nothing_else():
    spec = spec_of()
    assert replace(spec, seed=1).run_id != spec.run_id
    assert replace(spec, norm=NoNorm()).run_id != spec.run_id
    assert replace(spec, data=replace(spec.data, root="/elsewhere")).run_id == spec.run_id


def test_an_alias_is_the_same_run():
    assert spec_of("init=kaiming").run_id == spec_of("init=kaiming_normal").run_id


@pytest.mark.parametrize(
    ("lengths", "found"),
    [
        ({"epochs": None, "steps": None}, "neither is given"),
        ({"epochs": 2, "steps": 5}, "epochs=2 and steps=5 are both given"),
    ],
)
def test_the_length_is_said_in_one_way(lengths, found):
    with pytest.raises(ConfigError, match=found):
        replace(spec_of(), **lengths)


def test_epochs_count_whole_batches():
    spec = spec_of("epochs=2", "batch_size=64")
    assert spec.total_steps(train_size=1150) == 2 * 17
    with pytest.raises(ConfigError, match="batch_size=64 is not allowed: it must be at most 50"):
        spec.total_steps(train_size=50)
