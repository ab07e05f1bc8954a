"""The docs agree with the program: its metrics, figures, keys and commands, and the pages that they link to."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from bnstudy import load_metrics, when
from bnstudy.claims import metrics
from bnstudy.commands import SUBCOMMANDS
from bnstudy.config.free_keys import with_free_key
from bnstudy.report.figures import load_figures
from bnstudy.store.files import conf_dir

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]}
AVOIDED = ("picture", "what it came to", "at hand", "is told", "tells the rest", "whatever that is", "such as is")
"""Phrases that plain technical English does without."""


def table_rows(page: str, header: str) -> list[list[str]]:
    """The cells of each row of the tables of a page that begin with `header`."""
    tables = PAGES[page].split(header)[1:]
    assert tables, f"{page} has no table that begins with {header!r}"
    rows = [line for table in tables for line in table.split("\n\n")[0].splitlines()[2:]]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip("|"))] for row in rows]


def code_names(cell: str) -> list[str]:
    return re.findall(r"`([\w.]+)`", cell)


def compose_config(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", [*overrides], return_hydra_config=True)


def test_the_store_page_lists_every_probe_and_metric(command):
    probes = ("probe=full", "+probe.fit={_target_: bnstudy.probes.fit.TrainingFit}")
    status, _, err = command("-m", "model.activation=relu,tanh", "model.width=16", "steps=2", *probes)
    assert status == 0, err
    rows = load_metrics("results")
    recorded = {*rows[rows["split"] == ""]["metric"].astype(str)} - {"lr"}
    rows = table_rows("docs/reference/store.md", "| probe | metric |")
    documented = {name for row in rows for name in code_names(row[1])} - {"_scaled"}
    assert {name.removesuffix("_scaled") for name in recorded} == documented
    classes = {node["_target_"].rsplit(".", 1)[-1] for node in compose_config(*probes).probe.values()}
    assert {name for row in rows for name in code_names(row[0])} == classes


def test_the_report_page_lists_every_figure():
    rows = table_rows("docs/concepts/report.md", "| figure | shows |")
    assert {name for row in rows for name in row[0].split(", ")} == {*load_figures()}


def test_the_probe_page_lists_every_schedule_of_a_probe():
    listed = PAGES["docs/how-to/own-probe.md"].split("replaces the schedule:")[1].split("of `bnstudy/when.py`")[0]
    assert {*code_names(listed)} == {schedule.__name__ for schedule in when.When.__subclasses__()}


def test_the_claim_page_lists_every_metric_of_a_claim_and_no_unknown_one():
    rows = table_rows("docs/how-to/own-claim.md", "| metric | is | views |")
    documented = {name for row in rows for name in code_names(row[0])}
    used = {yaml.safe_load(path.read_text())["metric"] for path in (conf_dir() / "claim").glob("*.yaml")}
    assert used <= documented
    assert [name for name in documented if not hasattr(metrics, name)] == []


def test_the_configuration_page_lists_every_key_and_no_other():
    rows = table_rows("docs/concepts/runs.md", "| key | values |")
    documented = {name for row in rows for name in code_names(row[0])} | {"max_seeds", "seeds_at_once"}
    config = compose_config()
    assert {key for key in config if key != "hydra"} - {"scale", "study"} <= documented
    unknown = [key for key in documented if OmegaConf.select(config, key, default="unknown") == "unknown"]
    assert not unknown


def commands(program: str) -> list[list[str]]:
    """The command lines of a program in the fenced blocks of all pages, without those for files of one's own."""
    fenced = [found for text in PAGES.values() for found in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)]
    blocks = [block for kind, block in fenced if not kind]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = [shlex.split(line, comments=True) for line in lines if line.startswith(f"{program} ")]
    found = [words for words in found if not SUBCOMMANDS.keys() & {*words[1:2]}]
    return [words[1:] for words in found if "--config-dir" not in words and "_target_: my_" not in " ".join(words)]


@pytest.mark.parametrize("words", commands("bnstudy"), ids=" ".join)
def test_a_documented_command_composes(words):
    overrides = OverridesParser.create().parse_overrides([with_free_key(word) for word in words if "=" in word])
    if any(o.key_or_group == "hydra/sweeper" and o.value() == "optuna" for o in overrides):
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    first = [
        f"{o.get_key_element()}={next(o.sweep_string_iterator())}" if o.is_discrete_sweep() else str(o.input_line)
        for o in overrides
    ]
    of_study = [word for word in first if word.startswith("study=") and "all" not in word]
    sweep = compose_config(*of_study).study.sweep if of_study else {}
    if "model" in sweep and not any(o.key_or_group == "model" for o in overrides):  # whose keys the command may set
        first.append(f"model={sweep.model.split(',')[0]}")
    applied = compose_config(*first).hydra.overrides
    assert sorted([*applied.hydra, *applied.task]) == sorted(first)


def test_links_in_the_docs_lead_somewhere():
    anchors = {
        page: {
            re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.M)
        }
        for page, text in PAGES.items()
    }
    broken = []
    for page, text in PAGES.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = link.partition("#")
            if path.startswith("http"):
                continue
            target = (ROOT / page).parent / path if path else ROOT / page
            name = str(target.resolve().relative_to(ROOT))
            if not target.exists() or (anchor and anchor not in anchors[name]):
                broken.append(f"{page}: {link}")
    assert not broken


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_plain_english(page):
    assert [phrase for phrase in AVOIDED if phrase in PAGES[page].lower()] == []
