"""Completion as a shell asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bnstudy import cli, commands
from bnstudy.config.completion import complete

BASH = """
bnstudy() {{ {python} -c 'from bnstudy.cli import main; main()' "$@"; }}
bnstudy-report() {{ {python} -c 'from bnstudy.cli import report; report()' "$@"; }}
eval "$({program} --shell-completion install=bash)"
COMP_LINE={line!r} COMP_POINT={point}
{breaks}
{function}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def in_bash(line: str, breaks: str = "") -> list[str]:
    """What bash would offer, by the function that the installed script defines."""
    program = line.split()[0]
    function = f"_{program.replace('-', '_')}"
    script = BASH.format(
        python=sys.executable, program=program, function=function, line=line, point=len(line), breaks=breaks
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, check=True)
    return done.stdout.split()


def test_bash_completes_studies_for_both_commands():
    assert in_bash("bnstudy study=quick") == ["quickstart"]
    assert in_bash("bnstudy-report study=lr_") == ["lr_tolerance"]
    assert in_bash("bnstudy study=quick", breaks="COMP_WORDBREAKS=' '") == ["study=quickstart"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["stud"], ["study="]),
        (["nor"], ["norm.", "norm="]),
        (["norm=gr"], ["norm=group"]),
        (["-m", "norm=none,ba"], ["norm=none,batch", "norm=none,batch_per_step"]),
        (["model.w"], ["model.width=", "model.widths="]),
        (["model=transformer", "model.he"], ["model.heads="]),
        (["model=no_such", "model.wid"], ["model.width=", "model.widths="]),
        (["dry_run="], ["dry_run=true", "dry_run=false"]),
        (["--ver"], ["--version"]),
        (["show"], ["show"]),
        (["show", "results"], ["results_dir="]),
        (["claim=de"], []),
        (["lr=0"], []),
    ],
)
def test_a_word_of_bnstudy_is_completed(words, found):
    assert complete("bnstudy", words[:-1], words[-1], ["list", "show"]) == found


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["list", "--"], ["--all", "--config-dir", "--help", "--runs"]),
        (["prune", "--f"], ["--failed"]),
        (["list", ""], ["claims", "results_dir=", "runs", "studies"]),
        (["list", "--runs", "nor"], ["norm.", "norm="]),
        (["list", "--runs", "norm=gr"], ["norm=group"]),
        (["prune", "sta"], ["status="]),
        (["export", "c"], ["csv"]),
        (["export", "csv", "to"], ["to="]),
        (["show", "0a"], ["0a1b2c3d4e5f"]),
        (["diff", "results_dir=other", ""], ["results_dir="]),
    ],
)
def test_a_word_of_a_subcommand_is_completed(words, found, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/runs/0a1b2c3d4e5f").mkdir(parents=True)
    assert complete("bnstudy", words[:-1], words[-1], commands.SUBCOMMANDS, commands.flags) == found


@pytest.mark.parametrize(
    ("word", "found"),
    [("sc", ["scale="]), ("scale=q", ["scale=quick"]), ("--o", ["--open"]), ("norm=ba", []), ("cl", ["claims="])],
)
def test_a_word_of_the_report_command_is_completed(word, found):
    assert complete("bnstudy-report", [], word) == found


def test_an_unknown_shell_is_refused(command):
    for entry in (cli.main, cli.report):
        status, _, err = command("--shell-completion", "install=tcsh", entry=entry)
        assert (status, "it must be one of install=bash, install=zsh, install=fish." in err) == (2, True)
