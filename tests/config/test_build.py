from __future__ import annotations

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bnstudy.config.build import build_run_spec, build_settings, build_spec
from bnstudy.run import RunSpec
from bnstudy.store.files import conf_dir
from bnstudy.sweep.settings import Settings
from bnstudy.validation import ConfigError, to_dict
from tests.conftest import spec_of

GROUPS = ["model", "norm", "init", "data", "optim", "schedule", "probe", "scale"]
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((conf_dir() / group).glob("*.yaml"))]


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


def test_the_yaml_files_have_the_defaults_of_the_classes():
    """A default is in both: they must not drift apart."""
    for group, option in OPTIONS:
        if group in ("probe", "scale", "data"):
            continue
        node = OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{option}.yaml"))
        if "_target_" in node:
            made = build_spec(node, group)
            assert to_dict(made) == to_dict(type(made)()), f"{group}/{option}.yaml"


def test_settings_have_the_defaults_of_the_config():
    made = Settings(results_dir="r")
    assert made.cache == Path("r/cache")
    assert Settings(results_dir="r", cache_dir="c").cache == Path("c")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        assert build_settings(OmegaConf.to_container(compose("config"))) == Settings()


@pytest.mark.parametrize(
    ("node", "sentence"),
    [
        (
            {"_target_": "bnstudy.norms.batch.BatchNor"},
            "norm._target_=bnstudy.norms.batch.BatchNor cannot be imported",
        ),
        ({"_target_": "no_such_package.Norm"}, "No module named 'no_such_package'"),
        ({"_target_": "os.path.join"}, "must be a class derived from a Spec and decorated with @dataclass"),
        (
            {"_target_": "bnstudy.norms.group.LayerNorm", "epz": 1},
            "norm.epz is not a known key; did you mean norm.eps?",
        ),
    ],
)
def test_a_node_that_makes_no_spec_is_refused(node, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build_spec(node, "norm")


def test_a_null_probe_is_left_out():
    assert "dead_units" not in spec_of("probe.dead_units=null").probe
    assert "dead_units" in spec_of().probe


def test_a_spec_of_another_group_is_refused():
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = OmegaConf.to_container(
            compose("config", ["steps=1", "norm._target_=bnstudy.optim.SGD", "~norm.position"]), resolve=True
        )
    config["norm"] = {"_target_": "bnstudy.optim.SGD"}
    with pytest.raises(ConfigError, match="norm=SGD is not allowed"):
        build_run_spec(config)


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
