from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bnstudy.commands.settings import Options, command_words, same, typed
from bnstudy.config.arguments import parse_training_arguments
from bnstudy.store.files import conf_dir
from bnstudy.validation import to_dict
from tests.conftest import spec_of

COMMANDS = [
    ["steps=20"],
    ["norm=none", "lr=0.0316", "seed=3", "steps=100", "batch_size=32"],
    ["model=rnn", "model.width=16", "norm=layer", "data.length={min: 4, max: 8}", "probe=none", "epochs=2"],
    ["model=vgg", "model.stages=[[8,8],[16]]", "norm=group", "norm.groups=4", "norm.gamma=0.5", "steps=1"],
    ["init=by_kind", "init@init.conv=orthogonal", "optim=adamw", "schedule=step", "schedule.gamma=0.3", "steps=1"],
    ["model.widths=[64,32]", "data.scale=levels", "data.train_size=100", "loss=mse", "loss.summed=true", "steps=1"],
    ["norm.track_running_stats=false", "evaluation.batch_size=16", "evaluation.images=null", "steps=1"],
    ["early_stopping.patience=3", "early_stopping.by=accuracy", "precision=bf16", "trained=norm", "steps=9"],
    ["probe.dead_units=null", "probe.backprop.when.fractions=[0,0.5,1]", "steps=1"],
    ["~probe.dead_units.when", "+probe.dead_units.when={_target_: bnstudy.when.Every, interval: 50}", "steps=1"],
    ["+probe.sharper={_target_: bnstudy.probes.curvature.Sharpness, samples: 64, iterations: 4}", "steps=1"],
    ["norm.eps=1.23456789e-7", "optim.momentum=0.9", "model=small/mlp", "steps=1"],
]  # fmt: skip


@pytest.mark.parametrize("overrides", COMMANDS, ids=lambda o: o[0])
def test_the_words_of_a_run_describe_the_same_run(overrides):
    spec = spec_of(*overrides)
    words = command_words(Options().words(to_dict(spec)))
    _, flags = parse_training_arguments(words)
    assert spec_of(*flags.overrides).run_id == spec.run_id


def test_a_run_with_the_defaults_has_no_words():
    assert Options().words(to_dict(spec_of("steps=20"))) == {"steps": "20"}


def test_a_class_of_the_users_is_named_in_full_where_no_option_has_it():
    own = {"_target_": "mine.Scaled", "position": "after", "strength": 2.5, "names": ["a", "b"]}
    words = command_words(Options().words({**to_dict(spec_of()), "norm": own}))
    _, flags = parse_training_arguments(words)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        assert OmegaConf.to_container(compose("config", flags.overrides))["norm"] == own  # type: ignore[index]


def test_an_option_of_the_users_is_named_by_its_file(tmp_path: Path):
    (tmp_path / "norm").mkdir()
    (tmp_path / "norm" / "scaled.yaml").write_text("_target_: mine.Scaled\nposition: before\nstrength: 1.0\n")
    own = {"_target_": "mine.Scaled", "position": "before", "strength": 2.5}
    words = Options((tmp_path,)).words({**to_dict(spec_of("steps=20")), "norm": own})
    assert words == {"norm": "scaled", "norm.strength": "2.5", "steps": "20"}


def test_the_default_of_a_key_is_that_of_the_chosen_option():
    options, words = Options(), {"model": "small/mlp", "model.width": "8"}
    assert [options.default(words, key) for key in ("model", "model.width", "lr", "+norm.new")] == [
        "mlp", "32", "0.1", "-",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (True, "true"), (0.1, "0.1"), (1.0, "1"), (1e-5, "1e-05"), ([1, 2.5], "[1,2.5]"),
     ({"min": 4}, "{min: 4}"), ("a/b.c", "a/b.c"), ("null", "'null'"), ("it's", r"'it\'s'"), ("12", "'12'")],
)  # fmt: skip
def test_values_are_typed_as_hydra_reads_them(value: Any, text: str):
    assert typed(value) == text


def test_numbers_are_compared_by_value_and_flags_are_no_numbers():
    assert same(1, 1.0)
    assert same(1e-5, "1e-5")
    assert not same(True, 1)
    assert not same({"a": 1}, {"a": 1, "b": 2})
    assert same([0, 1.0], [0.0, 1])
