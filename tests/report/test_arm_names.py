from __future__ import annotations

import pytest

from bnstudy.claims.frames import load_study
from bnstudy.report.arm_names import find_arm, norm_options, parts_of, split_names
from bnstudy.validation import ConfigError
from tests import synthetic
from tests.synthetic import Run


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("BatchNorm, lr=1 vs NoNorm, lr=0.1", ("BatchNorm, lr=1", "NoNorm, lr=0.1")),
        ("BatchNorm,NoNorm", ("BatchNorm", "NoNorm")),
        ("0a1b2c3d4e5f,112233445566", ("0a1b2c3d4e5f", "112233445566")),
    ],
)
def test_two_names_are_split_at_vs_or_a_comma(text, names):
    assert split_names(text) == names


@pytest.mark.parametrize("text", ["BatchNorm, lr=1, NoNorm", "BatchNorm", "a vs b vs c", "a vs ", ","])
def test_anything_but_two_names_is_refused(text):
    with pytest.raises(ConfigError, match=f"compare={text} is not allowed: name two arms"):
        split_names(text)


@pytest.mark.parametrize(
    "name", ["NoNorm, lr=0.1", "lr=0.1, nonorm", "NoNorm,lr=0.1", "none, lr=0.1", "norm=none, lr=0.1"]
)
def test_an_arm_is_found_by_its_name(sweep, name):
    assert find_arm(sweep, name)[0] == "NoNorm, lr=0.1"


def test_an_arm_is_found_by_the_id_of_a_run(sweep):
    assert find_arm(sweep, sweep.runs.loc[sweep.runs["arm"] == "NoNorm, lr=3", "run_id"].iloc[-1])[0] == "NoNorm, lr=3"


def test_an_arm_is_found_by_a_distinguishing_part_of_its_name(two_models):
    assert find_arm(two_models, "VGG, LayerNorm")[0] == "VGG, LayerNorm"
    with pytest.raises(
        ConfigError, match=r"LayerNorm may be any of 2 networks: MLP on .*, LayerNorm; VGG on .*, LayerNorm"
    ):
        find_arm(two_models, "LayerNorm")


def test_an_unknown_arm_is_refused_with_the_nearest(sweep):
    with pytest.raises(ConfigError, match=r"no arm NoNorm, lr=0\.2 in lr_tolerance; did you mean NoNorm, lr=0\.3\?"):
        find_arm(sweep, "NoNorm, lr=0.2")


def test_a_name_that_leaves_only_the_learning_rate_open_means_the_best_on_validation(sweep):
    arm, how = find_arm(sweep, "batch")
    own = sweep.runs[sweep.runs["norm"] == "BatchNorm"]
    best = own.groupby("lr")["val_accuracy"].mean().idxmax()
    assert arm == f"BatchNorm, lr={best:g}"
    assert how.startswith(f"batch stands for its best learning rate, {best:g}: of 7 ")


def test_a_name_of_several_networks_is_refused(tmp_path):
    synthetic.write(tmp_path, [Run(norm, lr) for norm in ("NoNorm", "BatchNorm") for lr in (0.1, 1.0)])
    with pytest.raises(
        ConfigError, match=r"lr=0\.1 may be any of 2 networks: MLP on Digits, BatchNorm; MLP on Digits, NoNorm"
    ):
        find_arm(load_study(tmp_path), "lr=0.1")


def test_every_option_of_norm_has_the_label_that_reports_use():
    assert {"batch": "BatchNorm", "none": "NoNorm", "batch_per_step": "StepBatchNorm"}.items() <= norm_options().items()


def test_null_may_be_typed_as_on_the_command_line():
    assert parts_of("BatchNorm, momentum=null") == parts_of("batch, momentum=cumulative")
