from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bnstudy.config.build import build_run_spec, build_settings, build_spec
from bnstudy.run import RunSpec
from bnstudy.store.files import conf_dir
from bnstudy.sweep.settings import Settings
from bnstudy.validation import ConfigError
from tests.conftest import spec_of

GROUPS = ["model", "norm", "init", "data", "optim", "schedule", "probe", "scale"]
OPTIONS = [
    (group, path.relative_to(conf_dir() / group).with_suffix("").as_posix())
    for group in GROUPS
    for path in sorted((conf_dir() / group).rglob("*.yaml"))
]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_makes_a_valid_spec(group, option, tmp_path):
    here = [f"data.root={tmp_path}/images"] if option == "image_folder" else []
    spec = spec_of(f"{group}={option}", *here)
    assert isinstance(spec, RunSpec)
    assert len(spec.run_id) == 12


@pytest.mark.parametrize("option", sorted({p.stem for p in (conf_dir() / "study").glob("*.yaml")} - {"all"}))
def test_every_study_has_a_question_and_all_scales(option):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        study = build_spec(OmegaConf.to_container(compose("config", [f"study={option}"]).study), "study")
    assert study.name == option
    assert study.title.endswith("?")
    assert set(study.scales) == {"quick", "standard", "full"}


def test_a_yaml_file_lists_every_field_of_its_class_with_its_default():
    """A default is in both: they must not drift apart."""
    for group, option in OPTIONS:
        node = OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{option}.yaml"))
        if group != "probe" and "_target_" in node and "defaults" not in node:
            made = build_spec(node, group)
            assert made == type(made)(), f"{group}/{option}.yaml"
            assert node.keys() - {"_target_"} == {f.name for f in fields(made)}, f"{group}/{option}.yaml"


def test_nodes_that_configs_share_are_built_once_and_give_the_same_runs():
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = OmegaConf.to_container(compose("config", ["steps=10"]))
    configs, built = [{**config, "seed": seed} for seed in range(3)], {}
    runs = [build_run_spec(c, built) for c in configs]
    assert [run.run_id for run in runs] == [build_run_spec(c).run_id for c in configs]
    assert len({id(run.norm) for run in runs}) == 1


def test_of_several_wrong_nodes_the_first_is_named():
    wrong = {"_target_": "nowhere.Spec"}
    names = ["model", "norm", "init", "data", "optim", "schedule", "loss"]
    for order in (names, names[::-1]):
        with pytest.raises(ConfigError, match=rf"^{order[0]}\._target_=nowhere\.Spec"):
            build_run_spec(dict.fromkeys(order, wrong))


def test_settings_have_the_defaults_of_the_config():
    made = Settings(results_dir="r")
    assert made.cache == Path("r/cache")
    assert Settings(results_dir="r", cache_dir="c").cache == Path("c")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        assert build_settings(OmegaConf.to_container(compose("config"))) == Settings()


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("bnstudy.norms.batch.BatchNor", "norm._target_=bnstudy.norms.batch.BatchNor cannot be imported"),
        ("no_such_package.Norm", "No module named 'no_such_package'"),
        ("os.path.join", "must be a class derived from a Spec and decorated with @dataclass"),
        ("bnstudy.norms.group.LayerNorm", "norm.epz is not a known key; did you mean norm.eps?"),
    ],
)
def test_a_node_that_makes_no_spec_is_refused(target, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build_spec({"_target_": target, "epz": 1}, "norm")


def test_a_null_probe_is_left_out():
    assert "dead_units" not in spec_of("probe.dead_units=null").probe
    assert "dead_units" in spec_of().probe


def test_a_spec_of_another_group_is_refused():
    with pytest.raises(ConfigError, match="norm=SGD is not allowed"):
        spec_of("norm=none", "norm._target_=bnstudy.optim.SGD", "~norm.position")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("probe.dead_units.when.fractions=[2]", "probe.dead_units.when.fractions=[2] is not allowed"),
        ("probe.gradients.when.regular=0", "probe.gradients.when.regular=0 is not allowed"),
        ("norm.eps=-1", "norm.eps=-1 is not allowed"),
        ("lr=-1", "lr=-1 is not allowed"),
    ],
)
def test_a_refused_value_is_named_by_its_full_key(override, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        spec_of(override)
