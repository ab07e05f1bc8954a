from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from bnstudy import cli
from bnstudy.analysis.commands import for_hydra, report_command
from bnstudy.analysis.rendering import markdown
from tests.analysis import synthetic
from tests.analysis.test_report import claim_file, files

AWKWARD = Path("a  b's, ${HOME}; `touch x` =1")


@pytest.mark.parametrize(
    ("asked", "command"),
    [
        ({}, "bnstudy-report"),
        ({"study": "s", "scale": "quick"}, "bnstudy-report study=s scale=quick"),
        ({"results_dir": Path("out/1")}, "bnstudy-report results_dir=out/1"),
        ({"picked": ["b", "a", "b"]}, "bnstudy-report runs=a,b"),
        ({"compare": "A, lr=1 vs B", "study": 7}, "bnstudy-report 'compare=A, lr=1 vs B' study=7"),
        ({"claim_dirs": [Path("my conf")]}, """bnstudy-report 'claims='"'"'my conf'"'"''"""),
    ],
)
def test_the_command_says_what_is_not_the_default(asked, command):
    assert report_command(**{"results_dir": Path("results"), **asked}) == command


@pytest.mark.parametrize("text", ["plain/a-b.c", "~/x", "it's", "a, b", "a\\", "\\'", "[1]", "a=b", "{c: 1}", "ç é"])
def test_hydra_reads_what_was_meant(text):
    (override,) = OverridesParser.create().parse_overrides([f"results_dir={for_hydra(text)}"])
    assert override.value() == text


@pytest.fixture
def made_again(command):
    """Draws a report, then by the last command in it once more: whether all bytes are the same, and that command."""

    def draw(*arguments: str) -> tuple[bool, str]:
        status, out, err = command(*arguments, entry=cli.report)
        assert status == 0, err
        folder = Path(out.splitlines()[-1].removeprefix("Report: ")).parent
        first = files(folder)
        shown = re.findall(r"^    (bnstudy-report .*)$", (folder / "report.md").read_text(), re.MULTILINE)[-1]
        for path in folder.rglob("*.*"):
            path.unlink()
        status, _, err = command(*shlex.split(shown)[1:], entry=cli.report)
        assert status == 0, err
        return files(folder) == first, shown

    return draw


def test_a_report_is_made_again_by_its_command_wherever_the_store_is(made_again):
    place = Path("a  b's, (1); `touch x` =1")
    ids = synthetic.write(place, synthetic.lr_sweep(seeds=2, total=40))
    synthetic.plan(place, "s", ids, claims=["mine"])
    own = claim_file(Path("my claims"))
    same, shown = made_again("study=s", f"results_dir={for_hydra(str(place))}", f"claims={own}")
    assert same
    assert "study=s scale=quick" in shown
    assert made_again("study=all", f"results_dir={for_hydra(str(place))}", f"claims={own}")[0]


@pytest.mark.parametrize("place", ["results", "elsewhere"])
def test_a_comparison_is_made_again_by_its_command(made_again, place):
    picked = synthetic.write(Path(place), synthetic.lr_sweep(seeds=2, total=40))[:32:8]
    arms = "compare=BatchNorm, lr=0.003 vs NoNorm, lr=0.003"
    ids = [run.run_id for run in synthetic.lr_sweep(seeds=2, total=40) if run.lr == 0.003]
    synthetic.write(Path(place), [synthetic.Run("LayerNorm", total=40)])
    same, shown = made_again("compare=BatchNorm,NoNorm", f"runs={','.join(ids)}", f"results_dir={place}")
    assert same
    assert f"runs={','.join(sorted(ids))}" in shown
    assert ("results_dir" in shown) == (place != "results")
    assert made_again(arms, f"results_dir={place}")[0]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\u2028"])
def test_a_command_does_not_leave_its_block_of_code(end):
    content = {"lines": [f"bnstudy lr=0.1{end}# <b>not code</b>{end}[x](y)"]}
    text = markdown("commands_alone.md.j2", content)
    assert text.strip("\n") == "    bnstudy lr=0.1 # <b>not code</b> [x](y)"
