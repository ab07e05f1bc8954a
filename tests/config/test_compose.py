from __future__ import annotations

import itertools

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from bnstudy.config.build import build_request
from bnstudy.config.compose import compose_sweep, to_plain
from bnstudy.store.files import conf_dir
from bnstudy.validation import ConfigError


@pytest.fixture
def loader():
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def master_of(loader, *arguments: str):
    return loader.load_configuration("config", list(arguments), run_mode=RunMode.MULTIRUN)


@pytest.fixture
def points(loader):
    """`points("lr=1,2", ...)`: the points of that sweep."""

    def make(*arguments: str):
        about = [word for word in arguments if word.startswith(("study", "scale", "hydra"))]
        return compose_sweep(loader, master_of(loader, *about), arguments)

    return make


def test_points_equal_what_hydra_composes_in_the_same_order(points):
    arguments = ("norm=none,batch", "lr=0.1,1", "seed=range(0,3)", "model.width=choice(16,32)", "steps=5", "optim=adam")
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    jobs = BasicSweeper.split_arguments(parser.parse_overrides(list(arguments)), None)[0]
    made = points(*arguments)
    assert [list(p.overrides) for p in made] == jobs
    for point, job in itertools.islice(zip(made, jobs, strict=True), 0, None, 5):
        assert point.config == to_plain(compose("config", job))


def test_each_choice_of_groups_is_composed_once(points, monkeypatch):
    loader = GlobalHydra.instance().config_loader()
    calls = []
    original = type(loader).load_sweep_config
    monkeypatch.setattr(type(loader), "load_sweep_config", lambda *a: calls.append(a) or original(*a))
    assert len(points("norm=none,batch", "lr=1,2,3,4,5", "seed=range(0,10)", "steps=5")) == 100
    assert len(calls) == 2


def test_interpolations_are_resolved_after_plain_values(points):
    made = points("model.width=16,32", "model.depth=${model.width}", "steps=5")
    assert [p.config["model"]["depth"] for p in made] == [16, 32]


def test_added_and_deleted_keys_are_composed_by_hydra(points):
    (point,) = points("+probe.mine={_target_: bnstudy.probes.gradients.GradientNorm}", "~probe.dead_units", "steps=5")
    assert "mine" in point.config["probe"]
    assert "dead_units" not in point.config["probe"]


def test_scale_replaces_sweep_and_the_command_line_replaces_both(points):
    quick = points("study=lr_tolerance")
    assert len(quick) == 2 * 17 * 14
    assert {p.config["steps"] for p in quick} == {200}
    changed = points("study=lr_tolerance", "lr=0.1,1", "epochs=2", "seed=7", "model.depth=1")
    spelled_out = points("study=lr_tolerance", "lr=0.1,1", "epochs=2", "steps=null", "seed=7", "model.depth=1")
    assert [p.config for p in changed] == [p.config for p in spelled_out]
    norms = [f"bnstudy.norms.{norm}" for norm in ("none.NoNorm", "batch.BatchNorm")]
    assert [(p.config["norm"]["_target_"], p.config["lr"]) for p in changed] == [
        (n, r) for n in norms for r in (0.1, 1)
    ]
    assert {(p.config["epochs"], p.config["seed"], p.config["model"]["depth"]) for p in changed} == {(2, 7, 1)}
    standard = points("study=lr_tolerance", "scale=standard")
    assert {p.config["data"]["_target_"] for p in standard} == {"bnstudy.data.torchvision_sets.MNIST"}


def test_an_option_in_another_place_is_a_choice_of_its_own(points):
    made = points("init=by_kind", "init@init.conv=orthogonal,normal", "steps=5")
    assert [p.config["init"]["conv"]["_target_"] for p in made] == ["bnstudy.inits.Orthogonal", "bnstudy.inits.Normal"]
    assert {p.config["init"]["dense"]["_target_"] for p in made} == {"bnstudy.inits.XavierUniform"}


def test_a_glob_selects_the_options_that_match(points):
    made = points("norm=glob(*,exclude=[i*,g*,k*,s*,w*,noisy*,dyt,rms,batch_*])", "steps=5")
    assert [p.overrides[0] for p in made] == ["norm=batch", "norm=layer", "norm=none"]


def test_ranges_and_choices_are_hydras(points):
    made = points("seed=range(4,0,step=-2)", "lr=sort(1,0.1)", "model.width=shuffle(range(16,18))", "steps=5")
    assert [(p.config["seed"], p.config["lr"]) for p in made[::2]] == [(4, 0.1), (4, 1), (2, 0.1), (2, 1)]
    assert {p.config["model"]["width"] for p in made} == {16, 17}


def test_the_command_line_replaces_sweeper_params_and_can_set_one(points):
    made = points("hydra.sweeper.params={lr: '1,2', seed: '3,4'}", "seed=9", "steps=5")
    assert [(p.config["lr"], p.config["seed"]) for p in made] == [(1, 9), (2, 9)]
    made = points("hydra.sweeper.params.lr='1,2'", "hydra.sweeper.params.norm='glob(none*)'", "steps=5")
    assert [p.overrides[:2] for p in made] == [("lr=1", "norm=none"), ("lr=2", "norm=none")]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("lr=interval(0,1)", "steps=1"), "an interval has no list of values"),
        (("study=lr_tolerance,dead_relu",), "choose one study at a time"),
        (("seed=range(0,0)", "steps=1"), r"seed=range\(0,0\) is not allowed: it lists no values"),
        (("norm=glob(x*)", "steps=1"), "it lists no values"),
        (("seed=range(0,3,0)", "steps=1"), r"seed=range\(0,3,0\) is not allowed: its step must not be 0."),
        (("lr=range(0,1,0.0)", "steps=1"), "its step must not be 0"),
        (("seed=range(0,1000000000)", "steps=1"), "is not allowed: a sweep has at most 100000 runs."),
        (("seed=shuffle(range(5,-1000000000,-1))", "steps=1"), "a sweep has at most 100000 runs."),
        ((f"seed=range(0,1{'0' * 400})", "steps=1"), "a sweep has at most 100000 runs."),
        (("lr=range(0,1,1e-9)", "steps=1"), "a sweep has at most 100000 runs."),
        (("seed=range(0,60000)", "lr=1,2", "steps=1"), "The sweep has 120000 runs, more than 100000"),
        (("norm=[none,batch]", "steps=1"), "-m norm=none,batch, without brackets, trains several."),
        (("norm=[none,batch],layer", "steps=1"), "-m norm=none,batch,layer, without brackets"),
        (("norm=none,batch", "norm.epz=1", "steps=1"), "norm.epz is not a known key; did you mean norm.eps?"),
    ],
)
def test_sweeps_that_cannot_be_trained_are_refused(points, arguments, sentence):
    with pytest.raises(ConfigError, match=sentence):
        points(*arguments)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("norm=none,batch", "norm.eps=1e-3"), [("norm=none",), ("norm=batch", "norm.eps=1e-3")]),
        (("norm.eps=1e-3", "norm=none,batch"), [("norm=none",), ("norm.eps=1e-3", "norm=batch")]),
        (
            ("norm=none,group", "norm.groups=4,8"),
            [("norm=none",), ("norm=group", "norm.groups=4"), ("norm=group", "norm.groups=8")],
        ),
        (
            ("norm=batch,group", "norm.eps=1e-3", "norm.groups=${norm.eps}"),
            [("norm=batch", "norm.eps=1e-3"), ("norm=group", "norm.eps=1e-3", "norm.groups=${norm.eps}")],
        ),
        (
            ("norm=none,batch", "optim=sgd,adam", "optim.momentum=0.9", "norm.eps=1"),
            [
                ("norm=none", "optim=sgd", "optim.momentum=0.9"),
                ("norm=none", "optim=adam"),
                ("norm=batch", "optim=sgd", "optim.momentum=0.9", "norm.eps=1"),
                ("norm=batch", "optim=adam", "norm.eps=1"),
            ],
        ),
    ],
)
def test_a_key_of_a_swept_group_goes_to_the_options_that_have_it(loader, words, expected):
    made = [point.overrides for point in compose_sweep(loader, master_of(loader), ("steps=5", *words))]
    assert made == [("steps=5", *point) for point in expected]


def test_options_without_a_key_are_named_once(loader, caplog):
    compose_sweep(loader, master_of(loader), ("norm=none,batch,weight", "norm.eps=1e-3", "seed=0,1", "steps=5"))
    assert caplog.messages == ["norm.eps does not apply to norm=none, norm=weight, which have no such key."]


def test_a_value_that_is_listed_twice_counts_once_and_is_named(points, caplog):
    assert len(points("lr=0.1,0.1,1")) == len(points("lr=0.1,1"))
    assert caplog.messages == ["lr=0.1,0.1,1 lists a value twice: it counts once."]


def test_values_keep_their_types(points):
    (point,) = points("lr=1e-3", "epochs=null", "steps=3", "norm.affine=false", "device=cpu", "results_dir='a b'")
    config = point.config
    assert (config["lr"], config["epochs"], config["norm"]["affine"]) == (1e-3, None, False)
    assert config["results_dir"] == "a b"
    assert isinstance(OmegaConf.create(config).lr, float)


STUDIES = sorted({path.stem for path in (conf_dir() / "study").glob("*.yaml")} - {"all"})


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_composes_to_valid_runs_at_every_scale(loader, study):
    for scale in ("quick", "standard", "full"):
        words = (f"study={study}", f"scale={scale}", "norm=batch", "seed=0", "lr=0.1")
        request = build_request(compose_sweep(loader, master_of(loader, *words[:2]), words))
        assert len({run.spec.run_id for run in request.runs}) == len(request.runs) > 0


@pytest.fixture
def with_own_model(tmp_path):
    """A loader that also knows `model=mine`, which has no width and no depth."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("_target_: mine.Net\nchannels: 8\n")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        loader.get_search_path().prepend("mine", f"file://{tmp_path}")
        loader.repository = type(loader.repository)(loader.get_search_path())
        yield loader


def points_of_study(loader, *arguments: str):
    return compose_sweep(loader, master_of(loader, arguments[0]), arguments)


def test_the_sizes_of_a_study_apply_to_the_networks_that_have_them(with_own_model, caplog):
    made = points_of_study(with_own_model, "study=convergence", "model=mine,mlp", "seed=0", "lr=0.1")
    sizes = {(p.config["model"].get("width"), p.config["model"].get("channels"), p.config["steps"]) for p in made}
    assert sizes == {(64, None, 200), (None, 8, 200)}
    assert caplog.messages == []  # the user did not type the sizes


def test_the_points_of_a_swept_size_that_does_not_apply_are_one(with_own_model):
    made = points_of_study(with_own_model, "study=lu_born_dead", "model=mine", "seed=0")
    assert len({p.overrides for p in made}) == len(made)
    assert {tuple(p.config["model"]) for p in made} == {("_target_", "channels")}


def test_a_measurement_of_a_study_is_left_out_with_its_probe(with_own_model):
    (point,) = points_of_study(
        with_own_model, "study=dead_relu", "model=mlp", "norm=none", "init=kaiming", "probe=none", "seed=0", "lr=0.1"
    )
    assert not point.config["probe"]


@pytest.mark.parametrize("typed", ["model.width=32", "model.width=16,32", "hydra.sweeper.params={model.width: '16'}"])
def test_a_typed_key_that_no_network_has_is_refused_in_a_study_too(with_own_model, typed):
    own = ("study=convergence", "model=mine", "seed=0", "lr=0.1", typed)
    master = master_of(with_own_model, *(word for word in own if word.startswith(("study", "hydra"))))
    with pytest.raises((ConfigError, HydraException), match=r"model.width|Could not override"):
        compose_sweep(with_own_model, master, own)


def test_a_key_of_a_study_that_the_default_option_lacks_is_left_out(with_own_model):
    master = master_of(with_own_model, "study=convergence")
    OmegaConf.set_struct(master, False)
    master.study.sweep = {"norm.groups": 4, "norm.eps": 1e-3}
    master.study.scales, master.study.grid = {"quick": {"steps": 5}}, {}
    (point,) = compose_sweep(with_own_model, master, ())
    assert point.config["norm"]["eps"] == 1e-3
    assert "groups" not in point.config["norm"]
