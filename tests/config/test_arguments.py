from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from bnstudy import cli
from bnstudy.config.arguments import ReportOptions, parse_report_arguments, parse_training_arguments, read_word
from bnstudy.store.plans import Plans
from tests.conftest import Command


def options(**changes) -> ReportOptions:
    nothing = {"study": None, "scale": None, "runs": (), "compare": None, "claim_dirs": (), "config_dirs": ()}
    return ReportOptions(**{"results_dir": Path("results"), **nothing, **changes})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), options()),
        (("study=null", "runs=null"), options()),
        (("study=all", "scale=quick"), options(study="all", scale="quick")),
        (("compare=BatchNorm, lr=1 vs NoNorm, lr=0.1",), options(compare="BatchNorm, lr=1 vs NoNorm, lr=0.1")),
        (("runs=0e1,12",), options(runs=("0e1", "12"))),
        (("runs=['0e1', 12]",), options(runs=("0e1", "12"))),
        (("results_dir=it's, (1) =",), options(results_dir=Path("it's, (1) ="))),
        (("results_dir='a, b'",), options(results_dir=Path("a, b"))),
        (("claims=c/claim",), options(claim_dirs=(Path("c/claim"),))),
        (("study=s", "--config-dir", "c"), options(study="s", config_dirs=(Path("c"),))),
        (("-cd", "c", "claims=c/claim"), options(claim_dirs=(Path("c/claim"),), config_dirs=(Path("c"),))),
    ],
)
def test_report_options_are_the_words_as_typed(arguments, expected, tmp_path, monkeypatch):
    (tmp_path / "c" / "claim").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert parse_report_arguments(arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("stduy=a",), "stduy is not a known key; did you mean study?"),
        (("+study=a",), "+study is not a known key; did you mean study?"),
        (("hydra.run.dir=a",), "hydra.run.dir is not a known key. Known: claims"),
        (("study=a", "study=b"), "study=b is not allowed: study is given already, as study=a."),
        (
            ("quickstart",),
            "quickstart cannot be read: write key=value, without spaces, such as study=quickstart.",
        ),
        (("results_dir=",), "results_dir= is not allowed: it must be the name of a folder."),
        (("results_dir=null",), "results_dir=null is not allowed: it must be the name of a folder."),
        (("runs=",), "runs= is not allowed: it has no value; leave runs out, or write runs=null."),
        (("study=",), "study= is not allowed: it has no value"),
        (("runs=[]",), "runs=[] is not allowed: it must be ids of runs, such as runs=0a1b2c3d4e5f."),
        (("claims=nowhere",), "claims=nowhere is not allowed: there is no such folder."),
        (("--config-dir", "nowhere"), "--config-dir=nowhere is not allowed: there is no such folder."),
        (("--lr",), "--lr is not a flag: a value is written key=value."),
        (("--study=a",), "--study=a is not a flag: write study=a, without dashes."),
        (("-m", "study=a"), "-m is not a flag: a value is written key=value."),
        (("study=a", "--config-dir"), "argument --config-dir/-cd: expected one argument."),
    ],
)
def test_a_mistake_in_the_report_command_is_one_sentence(command: Command, arguments, sentence):
    status, out, err = command(*arguments, entry=cli.report)
    assert (status, out) == (2, "")
    assert err.startswith(f"bnstudy-report: {sentence}")
    assert len(err.splitlines()) == 1


def test_a_change_of_a_study_is_answered_with_the_variants_in_the_store(command: Command, tmp_path: Path):
    about = {"name": "quickstart-lr-1", "title": "Does it?", "claims": [], "variant_of": "quickstart"}
    Plans(tmp_path / "store").add(about, "quick", "bnstudy study=quickstart lr=1", [])
    status, _, err = command("study=quickstart", "lr=1", f"results_dir={tmp_path / 'store'}", entry=cli.report)
    assert (status, err.endswith("/store: study=quickstart-lr-1.\n")) == (2, True), err
    assert err.startswith(
        "bnstudy-report: lr=1 is not allowed: a study that was run with changes is a study of its own"
    )


PARSER = OverridesParser.create()


@pytest.mark.parametrize("key", ["results_dir", "cache_dir"])
@pytest.mark.parametrize(
    "path",
    [
        "~/runs",
        "/tmp/a=b",
        "/tmp/Müller",
        "it's",
        'a "b"',
        "a, b",
        "[1]",
        "{a}",
        "(1)",
        "range(0,3)",
        "null/x",
        "a\\",
        "1",
    ],
)
def test_a_path_is_read_as_typed(key, path):
    assert read_word(f"{key}={path}", PARSER).value() == path


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("results_dir='a b'", "a b"),
        ('results_dir="it\'s"', "it's"),
        ("cache_dir=null", None),
        ("data.root=~/images", "~/images"),
        ("data.root=/data/Müller (1)", "/data/Müller (1)"),
        ("data.name=Müller", "Müller"),
        ("lr=0.1", 0.1),
        ("model.kwargs={a: [1, 2]}", {"a": [1, 2]}),
    ],
)
def test_other_values_are_hydras_where_it_can_read_them(word, value):
    assert read_word(word, PARSER).value() == value


def test_a_list_of_paths_that_can_be_swept_stays_a_sweep():
    assert read_word("data.root=a,b", PARSER).is_sweep_override()


@pytest.mark.parametrize("word", ["lr=[", "seed=range(0,5", "norm", "a b=1", "lr=1,[2"])
def test_what_is_no_value_is_refused(word):
    with pytest.raises(HydraException):
        read_word(word, PARSER)


def test_the_words_about_runs_reach_the_sweeper_as_typed():
    words = ["norm=none,group", "norm.groups=4", "model.depth=${model.width}", "results_dir=it's", "~probe.dead_units"]
    _, flags = parse_training_arguments(["-m", "study=cost", *words, "hydra.launcher.workers=2"])
    *kept, sweep = flags.overrides
    assert kept == ["study=cost", "hydra.launcher.workers=2"]
    passed = [OmegaConf.create({"word": word}).word for word in PARSER.parse_override(sweep).value()]
    assert passed == [*words[:3], r"results_dir='it\'s'", words[4]]
