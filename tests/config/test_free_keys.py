"""model.kwargs takes any key, on the command line, in sweeps and in files."""

from __future__ import annotations

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from bnstudy.config.build import build_request
from bnstudy.config.compose import compose_sweep, to_typed
from bnstudy.config.free_keys import as_typed, with_free_key
from bnstudy.store.files import conf_dir
from bnstudy.validation import ConfigError

MODULE = ("model=module", "model.target=mine.Net", "norm=keep", "steps=2")


def requested(*arguments: str):
    words = [with_free_key(word) for word in arguments]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", [], RunMode.MULTIRUN)
        return build_request(compose_sweep(loader, master, words)).runs


def test_arguments_are_swept_one_by_one():
    runs = requested(*MODULE, "model.kwargs.width=16,32", "model.kwargs.p=0.5")
    assert [run.spec.model.kwargs for run in runs] == [{"p": 0.5, "width": 16}, {"p": 0.5, "width": 32}]
    assert [run.name for run in runs] == ["model.kwargs.width=16", "model.kwargs.width=32"]
    assert runs[0].spec.stack_key != runs[1].spec.stack_key


def test_arguments_keep_their_types():
    [run] = requested(*MODULE, "model.kwargs={sizes: [3, 4], inner: {a: null}, name: relu, flag: true, rate: 1e-3}")
    assert run.spec.model.kwargs == {
        "sizes": [3, 4],
        "inner": {"a": None},
        "name": "relu",
        "flag": True,
        "rate": 1e-3,
    }


def test_arguments_apply_to_the_module_among_swept_models():
    runs = requested("model=mlp,module", "model.target=mine.Net", "norm=none", "steps=2", "model.kwargs.width=3")
    assert [run.spec.model.label for run in runs] == ["MLP", "Net"]
    assert runs[1].spec.model.kwargs == {"width": 3}


def test_other_models_have_no_arguments():
    with pytest.raises(ConfigError, match=r"model\.kwargs is not a known key"):
        requested("model=mlp", "steps=2", "model.kwargs.width=3")


def test_a_mapping_in_a_file_is_typed_as_on_the_command_line():
    assert to_typed({"num_classes": 10, "sizes": [1, 2], "p": None}) == "{num_classes:10,sizes:[1,2],p:null}"


def test_messages_show_what_was_typed():
    for word in ("model.kwargs={a: 1}", "model.kwargs.a=1", "lr=1", "model.kwargs_of=2", "++lr=1"):
        assert as_typed(with_free_key(word)) == word


def test_the_command_reads_a_module_in_the_working_directory(command, tmp_path):
    (tmp_path / "own_net.py").write_text(
        "from torch import nn\n"
        "def make(width, classes=10):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.LayerNorm(width), nn.Linear(width, classes))\n"
    )
    words = ("model=module", "model.target=own_net.make", "steps=3", "progress=false", "probe=none", "batch_size=8")
    status, out, err = command("-m", *words, "norm=keep,none", "model.kwargs.width=4,8", "dry_run=true")
    assert status == 0, err
    assert "4 runs" in out + err
    status, _, err = command(*words, "norm=none", "model.kwargs={width: 4, classes: 3}")
    assert status == 2
    assert "it returns [2, 3] numbers, and must return [2, 10]" in err
    assert "type 'model.kwargs={classes: 10}'" in err
    status, _, err = command(*words, "norm=none", "model.kwargs={width: 4}")
    assert status == 0, err
