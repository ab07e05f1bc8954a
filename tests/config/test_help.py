"""What `bnstudy --help` says."""

from __future__ import annotations

import pytest

from bnstudy import commands
from bnstudy.config.help import is_study, options, short_keys, study_titles
from bnstudy.store.files import conf_dir


@pytest.fixture(scope="module")
def names() -> list[str]:
    return options("study", [conf_dir()])


def test_help_shows_subcommands_options_keys_and_the_questions_of_studies(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = command("--help")
    assert (status, err) == (0, "")
    text = " ".join(out.split())
    for name, does in commands.SUBCOMMANDS.items():
        assert f"bnstudy {name} {does}" in text
    for name, title in study_titles([conf_dir()]).items():
        assert f" {name} {title}" in text
    assert "norm=batch or batch_per_step, dyt, " in text
    assert "model depth=3 width=128 activation=relu" in text
    assert "epochs=null one of epochs and steps must be given" in text
    assert "_target_" not in out
    assert [line for line in out.splitlines() if len(line) > 82] == []


def test_every_key_of_the_configuration_is_in_the_help(command):
    keys = [line.split(":")[0] for line in (conf_dir() / "config.yaml").read_text().splitlines() if line[:1].isalpha()]
    out = command("--help")[1]
    assert {key for key in keys if f"  {key}=" not in out and f"  {key} " not in out} == {"defaults", "hydra"}


def test_help_shows_the_keys_of_the_chosen_options(command):
    out = command("norm=group", "model=vgg", "--help")[1]
    assert "norm=group " in out
    assert "groups=8" in out


def test_help_includes_the_options_and_studies_of_the_config_dir(command, tmp_path):
    for group, text in (("norm", "_target_: bnstudy.norms.none.NoNorm\n"), ("study", "title: Is it mine?\n")):
        (tmp_path / "mine" / group).mkdir(parents=True)
        (tmp_path / "mine" / group / "own.yaml").write_text(text)
    out = command("--config-dir", "mine", "norm=own", "--help")[1]
    assert "norm=own " in out
    assert "Is it mine?" in out


def test_all_studies_have_a_text_in_the_help(names):
    titles = study_titles([conf_dir()])
    assert [*titles] == names
    assert all(titles.values())
    assert all(map(is_study, names))


def test_nested_keys_are_dotted_and_classes_left_out():
    node = {"_target_": "a.B", "x": None, "when": {"_target_": "c.D", "early": 4, "flag": True}, "of": [1, 2]}
    assert list(short_keys(node)) == ["x=null", "when.early=4", "when.flag=true", "of=[1,2]"]
    assert list(short_keys({"one": {"a": 1}, "two": {"b": 2}})) == ["one, two"]
