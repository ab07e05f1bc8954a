from __future__ import annotations

import html
import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import pytest

from bnstudy import cli
from bnstudy.report.commands import report_command
from bnstudy.report.report import write_report
from bnstudy.store.plans import Plans
from tests import synthetic
from tests.report.pages import claim_file, files

AWKWARD = "a  b's, (1); `touch x` =1"


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ({}, "bnstudy-report"),
        ({"study": "s", "scale": "quick"}, "bnstudy-report study=s scale=quick"),
        ({"results_dir": Path("out/1")}, "bnstudy-report results_dir=out/1"),
        ({"picked": ["b", "a", "b"]}, "bnstudy-report runs=a,b"),
        ({"compare": "A, lr=1 vs B", "study": 7}, "bnstudy-report 'compare=A, lr=1 vs B' study=7"),
        ({"config_dirs": [Path("my conf")]}, "bnstudy-report '--config-dir=my conf'"),
        ({"claim_dirs": [Path("my conf")]}, "bnstudy-report 'claims=my conf'"),
    ],
)
def test_the_command_has_the_arguments_that_are_not_defaults(arguments, command):
    assert report_command(**{"results_dir": Path("results"), **arguments}) == command


@pytest.fixture
def rewrite(command):
    """Write a report, then again with the command in it: (whether all bytes are the same, the command)."""

    def draw(*arguments: str) -> tuple[bool, str]:
        status, out, err = command(*arguments, entry=cli.report)
        assert status == 0, err
        page = Path(unquote(out.splitlines()[-1].removeprefix("Report: file://")))
        folder, first = page.parent, files(page.parent)
        shown = html.unescape(re.findall(r"(?:^|<code>)(bnstudy-report .*)$", page.read_text(), re.MULTILINE)[-1])
        for path in folder.rglob("*.*"):
            path.unlink()
        status, _, err = command(*shlex.split(shown)[1:], entry=cli.report)
        assert status == 0, err
        return files(folder) == first, shown

    return draw


def test_the_command_in_a_report_writes_the_same_bytes_for_any_folder(rewrite):
    ids = synthetic.write(Path(AWKWARD), synthetic.lr_sweep(seeds=2, total=40))
    synthetic.plan(Path(AWKWARD), "s", ids, claims=["mine"])
    where = (f"results_dir={AWKWARD}", f"claims={claim_file(Path('my claims'))}")
    for study in ("s", "all"):
        same, shown = rewrite(f"study={study}", *where)
        assert same
        assert shown.startswith(f"bnstudy-report study={study} ")


@pytest.mark.parametrize("place", ["results", "elsewhere"])
def test_the_command_in_a_comparison_writes_the_same_bytes(rewrite, place):
    runs = synthetic.lr_sweep(seeds=2, total=40)
    synthetic.write(Path(place), runs)
    picked = ",".join(sorted(run.run_id for run in runs if run.lr == 0.1))
    same, shown = rewrite("compare=BatchNorm,NoNorm", f"runs={picked}", f"results_dir={place}")
    assert same
    assert shown.endswith(f"compare=BatchNorm,NoNorm runs={picked}" + " results_dir=elsewhere" * (place != "results"))
    assert rewrite("compare=BatchNorm, lr=0.1 vs NoNorm, lr=0.1", f"results_dir={place}")[0]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_a_command_with_line_breaks_stays_in_its_code_block(tmp_path, end):
    run, other = synthetic.Run(total=20), synthetic.Run(total=20, seed=1)
    synthetic.write(tmp_path, [run])
    hostile = shlex.join(["bnstudy", f"lr=0.1{end}# <b>hostile</b>{end}[hostile](y)"])
    about = {"name": "s", "title": "Does it?"}
    Plans(tmp_path).add(about, "quick", hostile, [run.run_id, other.run_id])
    lines = (write_report(tmp_path, "s").folder / "report.md").read_text().splitlines()
    assert {line for line in lines if "hostile" in line} == {"    bnstudy 'lr=0.1 # <b>hostile</b> [hostile](y)'"}
