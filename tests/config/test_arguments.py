from __future__ import annotations

from pathlib import Path

import pytest

from bnstudy import cli
from bnstudy.config.arguments import ReportOptions, parse_report_arguments
from tests.conftest import Command


def options(**changes) -> ReportOptions:
    nothing = {"study": None, "scale": None, "runs": (), "compare": None, "claim_dirs": (), "config_dirs": ()}
    return ReportOptions(**{"results_dir": Path("results"), **nothing, **changes})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), options()),
        (("study=null", "runs="), options()),
        (("study=all", "scale=quick"), options(study="all", scale="quick")),
        (("compare=BatchNorm, lr=1 vs NoNorm, lr=0.1",), options(compare="BatchNorm, lr=1 vs NoNorm, lr=0.1")),
        (("runs=0e1,12",), options(runs=("0e1", "12"))),
        (("runs=['0e1', 12]",), options(runs=("0e1", "12"))),
        (("results_dir=it's, (1) =",), options(results_dir=Path("it's, (1) ="))),
        (("results_dir='a, b'",), options(results_dir=Path("a, b"))),
        (("claims=c/claim",), options(claim_dirs=(Path("c/claim"),))),
        (("study=s", "--config-dir", "c"), options(study="s", config_dirs=(Path("c"),))),
        (("-cd", "c", "claims=d"), options(claim_dirs=(Path("d"),), config_dirs=(Path("c"),))),
    ],
)
def test_report_options_are_the_words_as_typed(arguments, expected):
    assert parse_report_arguments(arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("stduy=a",), "stduy is not a known key; did you mean study? Known: claims, compare, results_dir, runs, "),
        (("+study=a",), "+study is not a known key; did you mean study?"),
        (("hydra.run.dir=a",), "hydra.run.dir is not a known key. Known: claims"),
        (("study=a", "study=b"), "study=b is not allowed: study is given already, as study=a."),
        (("quickstart",), "quickstart cannot be read: write key=value, such as study=quickstart."),
        (("results_dir=",), "results_dir= is not allowed: it must be the name of a folder."),
        (("results_dir=null",), "results_dir=null is not allowed: it must be the name of a folder."),
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
