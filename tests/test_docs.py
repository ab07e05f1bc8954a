"""The docs agree with the program: its metrics, keys and commands, the pages that they link to, and the site."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from bnstudy import cli, load_metrics, load_runs, when
from bnstudy.commands import SUBCOMMANDS
from bnstudy.config.free_keys import with_free_key
from bnstudy.report.figures import load_figures
from bnstudy.store.files import conf_dir
from bnstudy.store.plans import Plans
from scripts.published.record import PUBLISHED
from tests.documents import PAGES, ROOT, blocks, write_files

DOCS = ROOT / "docs"
AVOIDED = ("picture", "what it came to", "at hand", "is told", "tells the rest", "whatever that is", "such as is")
"""Phrases that plain technical English does without."""

REASONS = {"needs a cluster", "needs a GPU", "needs a download"}
"""Why a block may be marked as not run."""


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


@pytest.fixture(scope="module")
def build(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """A folder with a copy of the docs and the site that was built from it, and how the build ended."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, folder / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / PUBLISHED, folder / PUBLISHED, ignore=shutil.ignore_patterns("*.parquet", "reports"))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "docs", "site"]
    return folder, subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)


@pytest.fixture(scope="module")
def reference(build) -> Path:
    """The folder of the generated pages."""
    return build[0] / "docs" / "reference"


def test_the_site_builds_without_warnings_and_loads_nothing_from_elsewhere(build):
    folder, done = build
    assert (done.returncode, done.stderr) == (0, "")
    pages = [*(folder / "site").rglob("*.html")]
    assert len(pages) > len(PAGES)
    outside = r"""<(?:script|img|link)[^>]+(?:src|href)="(https?:[^"]+)"""
    assert [found for page in pages for found in re.findall(outside, page.read_text())] == []


def test_the_reference_defines_every_metric_that_a_probe_records(command, reference):
    probes = ("probe=full", "+probe.fit={_target_: bnstudy.probes.fit.TrainingFit}")
    status, _, err = command("-m", "model.activation=relu,tanh", "model.width=16", "steps=2", *probes)
    assert status == 0, err
    rows = load_metrics("results")
    recorded = {*rows[rows["split"] == ""]["metric"].astype(str)} - {"lr"}
    documented = {*code_names((reference / "metrics.md").read_text())}
    assert {name.removesuffix("_scaled") for name in recorded} - documented == set()


def test_the_reference_lists_every_key_with_its_values_and_meaning(reference):
    pages = [(reference / f"{page}.md").read_text() for page in ("keys", "options")]
    rows = [row for page in pages for row in re.findall(r"^\| `([\w.]+)` \| (.*?) \| .* \| (.*?) \|$", page, re.M)]
    assert {key for key, _, _ in rows} >= keys_of(OmegaConf.to_container(compose_config()))
    assert [key for key, values, meaning in rows if not (key.startswith("probe.") or (values and meaning))] == []


def test_the_reference_names_functions_as_they_are_called(build):
    page = (build[0] / "site" / "reference" / "api.html").read_text()
    assert {*re.findall(r'id="(bnstudy\.(?:run|sweep|report|measure))"', page)} == {
        f"bnstudy.{name}" for name in ("run", "sweep", "report", "measure")
    }
    assert "bnstudy.api." not in page


def test_the_notebook_is_a_page_with_all_its_cells(build):
    page = (build[0] / "docs" / "reference" / "notebook.md").read_text()
    cells = json.loads((DOCS / "notebooks" / "first_sweep.ipynb").read_text())["cells"]
    assert [cell for cell in cells if "".join(cell["source"]) not in page] == []


def keys_of(node: dict, prefix: str = "") -> set[str]:
    """The dotted keys that can be set, without those of Hydra, of probes and of a `when`."""
    keys = set()
    for key, value in node.items():
        if key in ("hydra", "probe", "scale", "study", "_target_"):
            continue
        is_node = isinstance(value, dict) and key != "when"
        keys |= keys_of(value, f"{prefix}{key}.") if is_node and value else {f"{prefix}{key}"}
    return keys


@pytest.mark.parametrize(("page", "group"), [("claims", "claim"), ("studies", "study")])
def test_the_reference_has_every_claim_and_every_study(reference, page, group):
    headings = {*re.findall(r"^## `(\w+)`$", (reference / f"{page}.md").read_text(), re.M)}
    files = {path.stem for path in (conf_dir() / group).glob("*.yaml")} - {"all"}
    assert headings == files


def test_the_report_page_lists_every_figure():
    rows = table_rows("docs/concepts/report.md", "| figure | shows |")
    assert {name for row in rows for name in row[0].split(", ")} == {*load_figures()}


def test_the_probe_page_lists_every_schedule_of_a_probe():
    listed = PAGES["docs/how-to/own-probe.md"].split("replaces the schedule:")[1].split("of `bnstudy/when.py`")[0]
    assert {*code_names(listed)} == {schedule.__name__ for schedule in when.When.__subclasses__()}


TRAINING = [
    pytest.param(words[1:], id=" ".join(words))
    for page in PAGES
    for block in blocks(page)
    for words in block.commands()
    if words[0] == "bnstudy" and "=" in " ".join(words) and "my_" not in " ".join(words)
    if words[1] not in SUBCOMMANDS
]


@pytest.mark.parametrize("words", TRAINING)
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


@pytest.fixture(scope="module")
def small_store(tmp_path_factory) -> Path:
    """A few short runs of two studies, on which the commands of pages draw reports."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for study in ("quickstart", "lr_tolerance"):
            words = (f"study={study}", "lr=0.1,0.316,1", "seed=range(0,2)", "steps=3", "refine=false", "progress=false")
            patch.setattr(sys, "argv", ["bnstudy", *words])
            cli.main()
    return folder / "results"


REPORTED: set[frozenset[str]] = set()
"""The keys of the reports that were drawn: one report is drawn for each set of keys, as it takes seconds."""


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize("page", [page for page in PAGES if any(b.kind in ("", "python") for b in blocks(page))])
def test_what_a_page_says_to_type_works(command, small_store, tmp_path, monkeypatch, page):
    """Runs the commands and the Python code of a page in order, on few and short runs, in a folder with its files."""
    write_files(tmp_path)
    if not any(block.file for block in blocks(page)):
        shutil.copytree(small_store, tmp_path / "results")
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks(page):
        if block.reason is not None or block.file is not None:
            continue
        if block.kind == "python":
            exec(compile(block.text, page, "exec"), names)
        for words in block.commands():
            check(words, command)


def check(words: Sequence[str], command) -> None:
    """Run a command, a short version of it, or check that what it calls exists."""
    program, *arguments = words
    match program:
        case "bnstudy" if arguments and arguments[0] in SUBCOMMANDS:
            status, _, err = command(*on_the_store(arguments), *(["--yes"] if arguments[0] == "prune" else []))
            assert status == 0, f"{words}\n{err}"
        case "bnstudy":
            status, _, err = command(*shortened(arguments)) if can_run(arguments) else (0, "", "")
            assert status == 0, f"{words}\n{err}"
        case "bnstudy-report":
            keys = frozenset(word.partition("=")[0] for word in arguments)
            if keys not in REPORTED or "--config-dir" in keys:
                REPORTED.add(keys)
                status, _, err = command(*on_the_store(arguments), entry=cli.report)
                assert status == 0, f"{words}\n{err}"
        case "make":
            subprocess.run(["make", "-n", *arguments], cwd=ROOT, check=True, capture_output=True)
        case "python":
            assert (ROOT / arguments[0]).exists()
        case "source":
            assert arguments == [".venv/bin/activate"]
        case _:
            pytest.fail(f"no test knows how to run {words}")


def on_the_store(arguments: Sequence[str]) -> list[str]:
    """The arguments with ids of runs in the store, and a study in it instead of one that it lacks."""
    ids = iter(load_runs("results").drop_duplicates("lr")["run_id"] if Path("results/runs").exists() else [])
    folder = next((word[12:] for word in arguments if word.startswith("results_dir=")), "results")
    folder = folder.removesuffix("/published")  # which has no made-up runs
    words = [re.sub(r"\b(?=[a-f]*[0-9])[0-9a-f]{8,12}\b", lambda _: next(ids), word) for word in arguments]
    words = [re.sub("^scale=.*", "scale=quick", word) for word in words if word != "--open"]
    words = ["results_dir=results" if word == "results_dir=results/published" else word for word in words]
    return ["study=lr_tolerance" if is_unknown_study(word, Plans(Path(folder))) else word for word in words]


def is_unknown_study(word: str, plans: Plans) -> bool:
    key, _, name = word.partition("=")
    return key == "study" and name != "all" and not plans.load(plans.find(name))


def can_run(arguments: Sequence[str]) -> bool:
    needs_plugin = "hydra/sweeper=optuna" in arguments
    return not needs_plugin or shutil.which("optuna") is not None


def shortened(arguments: Sequence[str]) -> list[str]:
    """The same on digits, for three steps, at one learning rate, and with two seeds. Of a study that is no file of the
    page only the plan is made."""
    if not any("=" in word for word in arguments):
        return [*arguments]
    lengths, images = ("steps=", "epochs=", "until=", "max_seeds="), ("data=mnist", "data=cifar10", "data.test_size=")
    left_out = (*lengths, *images, "scale=standard")
    words = [word for word in arguments if not word.startswith(left_out)]
    words = [re.sub(r"^(lr=[\d.]+),.*", r"\1", re.sub(r"^seed=range.*", "seed=range(0,2)", word)) for word in words]
    if any(word.startswith("study=") for word in words):
        given = {word.partition("=")[0] for word in words}
        words += [word for word in ("lr=0.1", "seed=range(0,2)") if word.partition("=")[0] not in given]
        words += [] if {"--config-dir", "dry_run"} & given else ["dry_run=true"]
    return [*words, "steps=3", "progress=false"]


def test_few_blocks_are_not_run_and_each_says_why():
    reasons = [block.reason for page in PAGES for block in blocks(page) if block.reason is not None]
    assert {*reasons} <= REASONS
    assert len(reasons) <= 5


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
