from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import yaml

from bnstudy.claims.contrasts import Contrast
from bnstudy.claims.frames import load_study
from bnstudy.claims.verdicts import Verdict, as_json, judge, verdicts
from bnstudy.report.images import LIST, choose_name, inline_svg, listed_images
from bnstudy.report.page import StudyPart, claim_sections, summarize_claim
from bnstudy.report.rendering import case_text, escape_markdown, sort_value, survival
from bnstudy.report.report import tally, write_report
from bnstudy.report.result import ReportResult
from bnstudy.store.files import conf_dir
from bnstudy.store.runs import Store
from bnstudy.validation import ConfigError
from tests import sweeps, synthetic
from tests.synthetic import Run

WRITE = """
import sys
from pathlib import Path
from bnstudy.report.report import write_report
write_report(Path(sys.argv[1]), "lr_tolerance")
assert "torch" not in sys.modules, "torch was imported"
assert "matplotlib.pyplot" not in sys.modules, "pyplot was imported"
"""
KINDS = ("curves", "dead-map", "dead-units", "gradients", "learning-rates")
HOSTILE = "<script>alert(1)</script>|`x`[y](javascript:z)"


@pytest.fixture(scope="module")
def result(sweep_dir: Path) -> ReportResult:
    return write_report(sweep_dir, "lr_tolerance")


@pytest.fixture(scope="module", params=["index.html", "report.md"])
def text(result: ReportResult, request: pytest.FixtureRequest) -> str:
    return (result.folder / request.param).read_text()


@pytest.fixture(autouse=True)
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures of the report `result` are drawn; those of reports that a test itself writes are blank."""
    monkeypatch.setattr("bnstudy.report.images.render", lambda _, kind: {"svg": b"<svg></svg>", "png": b""}[kind])


class Page(HTMLParser):
    """Tags with their attributes, and the ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_report_has_a_page_tables_and_figures(result: ReportResult, sweep_dir: Path) -> None:
    assert result.folder == sweep_dir / "reports" / "lr_tolerance"
    figures = [f"figures/{kind}-mlp-on-digits" for kind in KINDS] + ["figures/effect-higher-learning-rates"]
    expected = {
        "index.html",
        "report.md",
        "runs.csv",
        "claims.json",
        "figures/files.json",
        *(f + end for f in figures for end in (".svg", ".png")),
    }
    assert set(files(result.folder)) == expected
    assert (result.diverged, result.missing) == (12, 1)


def test_the_same_store_gives_the_same_bytes_without_torch(result: ReportResult, sweep_dir: Path) -> None:
    first = files(result.folder)
    env = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-W", "error", "-c", WRITE, str(sweep_dir)], check=True, env=env)
    assert files(result.folder) == first


def test_the_page_stands_alone(result: ReportResult) -> None:
    text = result.index.read_text()
    page = Page(text)
    loaded = [a.get("src") or a.get("href") or a.get("xlink:href") or "" for _, a in page.tags]
    assert not [url for url in loaded if re.match(r"(?i)[a-z]+:|//", url)]
    assert not page.all("link") + page.all("img") + page.all("iframe")
    assert page.all("script") == [{}]  # its own, in the page
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_the_page_is_accessible(result: ReportResult) -> None:
    page = Page(result.index.read_text())
    drawings = page.all("svg")
    assert len(drawings) == len(KINDS) + 1
    assert all(d["role"] == "img" and "MLP on Digits" in str(d["aria-label"]) for d in drawings)
    assert all("width" not in d and "viewbox" in d for d in drawings)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert page.all("html")[0]["lang"] == "en"
    assert any(m.get("name") == "viewport" for m in page.all("meta"))
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings))
    assert all(len(page.all(landmark)) == 1 for landmark in ("header", "nav", "main", "footer"))
    assert len(page.all("caption")) == len(page.all("table"))
    targets = {str(a["href"])[1:] for a in page.all("a") if str(a["href"]).startswith("#")}
    assert targets <= set(ids)


def test_missing_runs_are_listed_with_the_command_that_completes_them(text: str) -> None:
    assert "Missing: 1 of 48 runs" in text
    assert "BatchNorm, lr=1: 2 of 3 seeds" in text
    assert "bnstudy study=lr_tolerance scale=quick" in text
    assert "NoNorm, lr=1: 3 of 3 diverged, the first at step" in text


def test_verdicts_come_first(text: str) -> None:
    assert text.index("Batch normalization tolerates higher learning rates.") < text.index("Findings")
    assert "INCONCLUSIVE" in text
    assert "grid incomplete" in text or "runs incomplete" in text


def test_claims_json_has_the_numbers_of_a_verdict(result: ReportResult) -> None:
    (verdict,) = json.loads((result.folder / "claims.json").read_text())
    named = {"claim", "statement", "model", "data", "status", "effect", "ci_low", "ci_high", "unit", "threshold"}
    named |= {"n_seeds", "run_ids", "view", "p", "p_holm", "d_z", "more_seeds", "because"}
    assert named <= set(verdict)
    assert (verdict["claim"], verdict["model"], verdict["data"]) == ("higher_learning_rates", "MLP", "Digits")
    assert len(verdict["run_ids"]) == 42  # of 47: not those at rate 1, which lacks a seed


def test_without_claims_there_is_no_table_of_verdicts(tmp_path: Path) -> None:
    synthetic.write(tmp_path, [Run(total=20)])
    folder = write_report(tmp_path).folder
    assert json.loads((folder / "claims.json").read_text()) == []
    assert "Verdicts" not in (folder / "index.html").read_text()
    assert "Verdicts" not in (folder / "report.md").read_text()


def test_markdown_shows_the_figures(result: ReportResult) -> None:
    text = (result.folder / "report.md").read_text()
    shown = re.findall(r"!\[[^]]+\]\((figures/[^)]+\.png)\)", text)
    assert len(shown) == len(set(shown)) == len(KINDS) + 1
    assert all((result.folder / path).is_file() for path in shown)


def test_the_table_of_runs_has_every_run(result: ReportResult) -> None:
    table = pd.read_csv(result.folder / "runs.csv")
    assert table["run_id"].is_monotonic_increasing
    assert len(table) == 47
    assert list(table.columns[1:]) == sorted(table.columns[1:])


def test_hostile_names_run_no_script(tmp_path: Path) -> None:
    runs = [Run(HOSTILE, data=HOSTILE), Run("NoNorm", data=HOSTILE)]
    synthetic.plan(tmp_path, "s", synthetic.write(tmp_path, runs), title=f"Is {HOSTILE} bad?\n# no")
    folder = write_report(tmp_path, "s").folder
    page = (folder / "index.html").read_text()
    assert "&lt;script&gt;" in page
    assert Page(page).all("script") == [{}]
    assert not [a for a in Page(page).all("a") if ":" in str(a["href"])]
    markdown = (folder / "report.md").read_text()
    assert "<script" not in markdown
    assert "[y](" not in markdown.replace("\\[y\\](", "")
    assert "\n# no" not in markdown


def test_figures_of_an_earlier_report_are_removed(tmp_path: Path) -> None:
    synthetic.write(tmp_path, [Run(total=20)])
    figures = write_report(tmp_path).folder / "figures"
    first = {path.name for path in figures.glob("*.*g")}
    mine = figures / "mine.svg"
    mine.touch()
    synthetic.write(tmp_path, [Run(total=20, model="VGG")])
    (tmp_path / "runs" / Run(total=20).run_id / "summary.json").unlink()
    result = write_report(tmp_path)
    second = {path.name for path in figures.glob("*.*g")} - {"mine.svg"}
    assert first.isdisjoint(second)
    assert mine.exists()
    assert result.folder.name == "all"
    assert result.missing == 1


def test_the_temporary_files_of_a_killed_report_are_removed(tmp_path: Path) -> None:
    synthetic.write(tmp_path, [Run(total=20)])
    folder = tmp_path / "reports" / "all"
    (folder / "figures").mkdir(parents=True)
    abandoned = [folder / ".report.md.0123456789abcdef", folder / "figures" / ".curves.svg.0123456789abcdef"]
    mine = folder / ".mine.md"
    for path in (*abandoned, mine):
        path.touch()
        os.utime(path, (0, 0))
    write_report(tmp_path)
    assert [path.exists() for path in (*abandoned, mine)] == [False, False, True]


@pytest.mark.parametrize("listed", ['["../../../home.png", "/x.png", "kept.txt", 7]', '{"a": 1}', "7", "[", '[["x"]]'])
def test_a_list_of_figures_from_a_stranger_deletes_no_other_file(tmp_path: Path, listed: str) -> None:
    synthetic.write(tmp_path, [Run(total=20)])
    figures = tmp_path / "reports" / "all" / "figures"
    figures.mkdir(parents=True)
    (figures / "files.json").write_text(listed)
    kept = [tmp_path / "home.png", figures / "kept.txt"]
    for path in kept:
        path.touch()
    write_report(tmp_path)
    assert all(path.exists() for path in kept)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_list_of_figures_that_is_no_file_names_none(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / LIST)
    assert listed_images(tmp_path) == set()


@pytest.mark.parametrize("linked", ["reports", "reports/s", "reports/s/figures", "studies/s/quick/reported"])
def test_a_report_writes_and_deletes_nothing_through_a_symbolic_link(tmp_path: Path, linked: str) -> None:
    store, home = tmp_path / "store", tmp_path / "home"
    synthetic.plan(store, "s", synthetic.write(store, [Run(total=20)]))
    home.mkdir()
    for name in ("index.html", "curves-mlp-on-digits.svg", "old.png"):
        (home / name).write_text("mine")
    link = store / linked
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(home)
    before = files(home)
    if linked.startswith("reports"):
        with pytest.raises(ConfigError, match=rf"^{link} is a symbolic link"):
            write_report(store, "s")
    else:
        write_report(store, "s")  # without a mark
    assert files(home) == before


@pytest.mark.parametrize("name", ["../../home", "/tmp/home", "x/../../../home"])
def test_the_name_of_a_report_is_that_of_the_studys_folder(tmp_path: Path, name: str) -> None:
    store = tmp_path / "a" / "store"
    synthetic.plan(store, "s", synthetic.write(store, [Run(total=20)]))
    [plan] = (store / "studies/s/quick").glob("*.json")
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"name": name, "scale": name}))
    assert write_report(store, "s").folder == store / "reports" / "s"
    assert write_report(store, "all").folder == store / "reports" / "all-studies"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("blocked", ["reports", "reports/all", "reports/all/figures"])
def test_a_file_in_the_way_is_named(tmp_path: Path, blocked: str) -> None:
    synthetic.write(tmp_path, [Run(total=20)])
    path = tmp_path / blocked
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with pytest.raises(ConfigError, match=rf"cannot be written .*: {path} is a file, not a folder"):
        write_report(tmp_path)


def test_all_cautions_are_shown(result: ReportResult, text: str) -> None:
    assert len(result.cautions) == 2
    assert all(sentence in text for sentence in result.cautions)


def test_tables_scroll_by_themselves(result: ReportResult) -> None:
    page = Page(result.index.read_text())
    regions = [a for a in page.all("div") if a.get("class") == "scroll"]
    assert len(regions) == len(page.all("table")) - 1 == 3  # but the verdicts, whose rows become blocks
    assert regions[0]["tabindex"] == "0"


@pytest.mark.parametrize(
    ("value", "text"),
    [("a_b", r"a\_b"), ("a\n# b", r"a \# b"), ("<b>&", "&lt;b&gt;&amp;"), ("- x|y", r"\- x\|y"), (3, "3")],
)
def test_markdown_text(value: object, text: str) -> None:
    assert escape_markdown(value) == text


def test_file_names_are_plain_and_distinct() -> None:
    taken: set[str] = set()
    assert [choose_name("a-B on ../ç", taken), choose_name("a-b ON", taken)] == ["a-b-on", "a-b-on-2"]


def test_inlined_drawings_keep_their_ids_to_themselves() -> None:
    svg = (
        '<?xml?><svg width="9pt" viewBox="0 0 9 9" height="9pt"><g id="p"/><use xlink:href="#p" clip="url(#p)"/></svg>'
    )
    assert inline_svg(svg, "f", 'a "b"') == (
        '<svg viewBox="0 0 9 9" role="img" aria-label="a &#34;b&#34;">'
        '<g id="f-p"/><use xlink:href="#f-p" clip="url(#f-p)"/></svg>'
    )


def test_runs_picked_by_hand_have_a_report_of_their_own(tmp_path: Path) -> None:
    first, second, _ = synthetic.write(
        tmp_path, [Run(total=20), Run("BatchNorm", total=20), Run("LayerNorm", total=20)]
    )
    result = write_report(tmp_path, picked=[second, first, first])
    assert result.folder.name == f"runs-{'-'.join(sorted([first, second]))}"
    assert set(pd.read_csv(result.folder / "runs.csv")["run_id"]) == {first, second}
    text = (result.folder / "report.md").read_text()
    assert "Runs picked by hand" in text
    assert "LayerNorm" not in text


def test_many_picked_runs_have_a_short_name(tmp_path: Path) -> None:
    ids = synthetic.write(tmp_path, [Run(seed=seed, total=20) for seed in range(6)])
    names = {load_study(tmp_path, picked=picked).name for picked in (ids, ids[::-1], ids[1:])}
    assert len(names) == 2
    assert all(re.fullmatch(r"runs-[0-9a-f]{12}-and-\d-more-[0-9a-f]{8}", name) for name in names)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"picked": ["{near}"]}, "runs={near}: there is no such run in .*; did you mean {run_id}?"),
        ({"picked": ["{run_id}", "zzz"]}, r"runs=zzz: there is no such run in [^;]*\."),
        ({"picked": ["{run_id}"], "study": "s"}, "not allowed together with a study"),
    ],
)
def test_wrong_picks_are_refused_in_a_sentence(tmp_path: Path, options: dict, sentence: str) -> None:
    (run_id,) = synthetic.write(tmp_path, [Run(total=20)])
    names = {"run_id": run_id, "near": run_id[:-1] + "-"}
    options = {**options, "picked": [text.format(**names) for text in options["picked"]]}
    with pytest.raises(ConfigError, match=sentence.format(**names).replace("?", r"\?")):
        write_report(tmp_path, **options)


def test_a_study_whose_runs_are_all_damaged_costs_no_other_study_its_report(tmp_path: Path) -> None:
    for name, seed in (("good", 0), ("bad", 1)):
        synthetic.plan(tmp_path, name, synthetic.write(tmp_path, [Run(total=20, seed=seed)]))
    synthetic.edit_summary(tmp_path, Run(total=20, seed=1).run_id, status="unknown")
    found = write_report(tmp_path, "all").cautions
    assert any("bad: No run can be reported on. Run" in caution for caution in found)
    synthetic.edit_summary(tmp_path, Run(total=20).run_id, status="unknown")
    with pytest.raises(ConfigError, match=r"study=all: .* No run can be reported on"):
        write_report(tmp_path, "all")


def test_a_picked_run_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    (run_id,) = synthetic.write(tmp_path, [Run(total=20)])
    Store(tmp_path).run(run_id).summary.unlink()
    with pytest.raises(ConfigError, match="None of the 1 runs picked is finished yet"):
        write_report(tmp_path, picked=[run_id])


def test_the_time_of_probes_is_shown(tmp_path: Path) -> None:
    (run_id,) = synthetic.write(tmp_path, [Run(total=20)])
    total = Store(tmp_path).summary(run_id)["seconds"]["total"]
    synthetic.edit_summary(tmp_path, run_id, probe_seconds={"gradients": total / 4, "norms": total / 8})
    folder = write_report(tmp_path).folder
    assert "| gradients | 1 |" in (folder / "report.md").read_text()
    assert '<td class="t">norms</td><td class="n" data-value="1">1</td>' in (folder / "index.html").read_text()
    assert '<td class="n" data-value="12.5">12.5%</td>' in (folder / "index.html").read_text()


@pytest.mark.parametrize("name", ["index.html", "report.md"])
def test_numbers_that_do_not_exist_are_dashes(tmp_path: Path, name: str) -> None:
    synthetic.plan(tmp_path, "s", synthetic.write(tmp_path, [Run(total=20)]), claims=["dead_relus"])
    cells = {"index.html": '<td class="n" data-value="">-</td>' * 2, "report.md": r"| \- | \- | \- | \- | 0 | \- |"}
    assert cells[name] in (write_report(tmp_path, "s").folder / name).read_text()


def test_several_cases_are_summarized_by_their_statuses() -> None:
    supported, contradicted = (verdicts(sweeps.of(claims=("dead_relus",), fewer=f)) for f in (0.15, -0.15))
    assert summarize_claim(supported) == f"for {supported[0].result}"
    assert summarize_claim([*supported, *supported]) == "in all 2 cases, each at its best."
    both = [*supported, *contradicted]
    assert summarize_claim(both) == "Of 2 cases, each at its best: SUPPORTED in 1, CONTRADICTED in 1."
    assert tally(both) == "4 verdicts in all views: 2 SUPPORTED, 2 CONTRADICTED."


def of_contrast(*d: float, **changes: object) -> list[Verdict]:
    return [judge(sweeps.contrast_of([*d], **changes))]


@pytest.mark.parametrize(
    ("view", "note"),
    [
        (
            "best_rate",
            "How many seeds are evaluated at which rate. For each seed all other seeds choose it, by the valid",
        ),
        ("fixed_rate", "Only one learning rate was tried: nothing was chosen."),
        ("all_rates", "The metric is one number of all learning rates: nothing is chosen."),
    ],
)
def test_the_rates_of_a_claim_are_described_by_view(view: str, note: str) -> None:
    contrast = replace(
        sweeps.contrast_of([1.0] * 10), view=view, rates={"with": {0.1: 9, 1.0: 1}, "without": {0.1: 10}},
        grids={"with": (0.1, 1.0), "without": (0.1,)},
    )  # fmt: skip
    (section,) = claim_sections([judge(contrast)], [part(contrast)], set())
    assert section.rates_note.startswith(note)
    (row,) = section.rates
    assert (row["with_"], row["without"]) == ("0.1 (9 seeds) or 1 (1)", "0.1")
    assert row["grid"] == "with it 2 rates: 0.1, 1; without it 1 rate: 0.1"


def part(contrast: Contrast) -> StudyPart:
    study = replace(sweeps.of(seeds=1), name=contrast.study)
    return StudyPart(study, "", [], 0, [], [], [], [], [], [], None, [])


def test_cases_at_a_fixed_rate_are_never_best_against_best() -> None:
    at_one = replace(sweeps.contrast_of([1.0] * 10), view="fixed_rate", rates={"with": {0.5: 10}, "without": {0.5: 10}})
    fixed, best = judge(at_one), judge(sweeps.contrast_of([1.0] * 10))
    assert case_text(fixed) == "MLP on Digits, at a fixed learning rate, 0.5"
    assert case_text(best) == "MLP on Digits"
    assert summarize_claim([fixed, fixed]) == "in all 2 cases, at a fixed learning rate."
    assert summarize_claim([fixed, best]) == "in all 2 cases, at a fixed learning rate or each at its best."


def test_the_error_of_the_test_images_is_beside_an_effect_on_accuracy() -> None:
    known, unknown = of_contrast(*[1.0] * 10, image_error=0.314, images=359, steps=200), of_contrast(*[1.0] * 10)
    assert known[0].image_error == "0.31 (standard error of the 359 test images), after 200 steps"
    assert "10 seeds; 0.31 (standard error of the 359 test images), after 200 steps." in known[0].sentence
    assert unknown[0].image_error == "unknown: these runs did not record which test images they got right"
    assert unknown[0].sentence.endswith("10 seeds.")
    lacking = [claim_sections(v, [part(v[0].contrast)], set())[0].lacks_image_errors for v in (known, unknown)]
    assert lacking == [False, True]


def test_an_interval_with_slack_is_marked_wherever_it_is_shown() -> None:
    (verdict,) = of_contrast(*[1.0, 1.1] * 6, slack=0.1)
    assert verdict.interval == "1.05 (0.917 to 1.18, widened by a grid step)"
    (section,) = claim_sections([verdict], [part(verdict.contrast)], set())
    assert "widens the interval at both ends" in section.effect.caption
    assert "widened by a grid step" in section.effect.inline
    assert as_json([verdict])[0]["interval_is"] == "95%, widened by a grid step"


def test_a_verdict_survives_or_not_and_an_inconclusive_case_does_neither() -> None:
    (stands,) = of_contrast(*[1.0] * 10)
    (open_,) = of_contrast(*[0.0, 1.0] * 5)
    assert [survival(v) for v in (stands, replace(stands, p_holm=0.06), open_)] == ["yes", "no", "-"]


def claim_file(folder: Path, name: str = "mine", **changes: object) -> Path:
    """A claim of one's own, like that on learning rates; returns its folder."""
    node = yaml.safe_load((conf_dir() / "claim" / "higher_learning_rates.yaml").read_text())
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({**node, **changes}))
    return folder


def test_the_figures_of_a_claim_are_in_its_section_only(result: ReportResult) -> None:
    text = result.index.read_text()
    section = text[text.index('id="claim-higher-learning-rates"') : text.index('id="findings"')]
    assert 'id="figure-effect-higher-learning-rates"' in section
    assert 'id="figure-learning-rates-mlp-on-digits"' in section
    assert text.count('id="figure-learning-rates-mlp-on-digits"') == 1
    assert "What counts against it" in section
    assert "bnstudy-report study=lr_tolerance scale=quick" in section


def test_a_figure_of_two_claims_is_in_the_section_of_the_first(tmp_path: Path) -> None:
    runs = synthetic.lr_sweep(seeds=2, total=40)
    own = claim_file(tmp_path / "claims", statement="Another one.", order=1)
    ids = synthetic.write(tmp_path, runs)
    synthetic.plan(tmp_path, "s", ids, claims=["higher_learning_rates", "mine"])
    text = write_report(tmp_path, "s", claim_dirs=[own]).index.read_text()
    assert text.index("Another one.") < text.index("tolerates higher")
    assert text.count('id="figure-learning-rates-mlp-on-digits"') == 1
    assert text.count('href="#figure-learning-rates-mlp-on-digits"') == 1


def test_caveats_and_sources_are_shown_without_running_scripts(tmp_path: Path) -> None:
    own = claim_file(tmp_path / "claims", caveats=[HOSTILE, "Second."], source=HOSTILE, statement=f"{HOSTILE} helps.")
    synthetic.plan(tmp_path, "s", synthetic.write(tmp_path, synthetic.lr_sweep(seeds=2, total=40)), claims=["mine"])
    folder = write_report(tmp_path, "s", claim_dirs=[own]).folder
    page = Page((folder / "index.html").read_text())
    assert page.all("script") == [{}]
    assert "Second." in (folder / "report.md").read_text()
    assert "<script" not in (folder / "report.md").read_text()


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three studies at two scales."""
    folder = tmp_path_factory.mktemp("several")
    claims = ["higher_learning_rates", "dead_relus"]
    small, large = synthetic.lr_sweep(seeds=6, total=40), synthetic.lr_sweep(seeds=8, total=60)
    synthetic.plan(folder, "quickstart", synthetic.write(folder, small), claims=claims)
    synthetic.plan(folder, "lr_tolerance", synthetic.write(folder, large), claims=claims[:1])
    waiting = [Run(norm, seed=99) for norm in ("NoNorm", "BatchNorm")]
    synthetic.plan(folder, "dead_relu", [r.run_id for r in waiting], claims=claims[1:])
    synthetic.plan(folder, "plain", synthetic.write(folder, synthetic.two_models()), scale="full")
    return folder


def test_a_claim_of_several_studies_is_judged_on_the_one_with_the_most_runs(several: Path) -> None:
    result = write_report(several, "all", "quick")
    assert result.folder == several / "reports" / "all-studies"
    found = json.loads((result.folder / "claims.json").read_text())
    assert {v["claim"]: v["study"] for v in found} == {
        "higher_learning_rates": "lr_tolerance", "dead_relus": "quickstart",
    }  # fmt: skip
    assert result.cautions == ("dead_relu: none of its 2 runs is finished.",)


def test_a_report_of_all_studies_has_the_figures_of_claims_alone(several: Path) -> None:
    folder = write_report(several, "all", "quick").folder
    assert {path.stem for path in (folder / "figures").glob("*.svg")} == {
        "effect-higher-learning-rates", "lr-tolerance-learning-rates-mlp-on-digits",
        "effect-dead-relus", "quickstart-dead-units-mlp-on-digits",
    }  # fmt: skip
    text = (folder / "index.html").read_text()
    assert "bnstudy-report study=quickstart scale=quick" in text
    ids = [a["id"] for _, a in Page(text).tags if "id" in a]
    assert len(ids) == len(set(ids))
    table = pd.read_csv(folder / "runs.csv")
    assert table.groupby("study").size().to_dict() == {"lr_tolerance": 128, "quickstart": 96}


def test_the_scale_planned_last_is_the_default_of_all_studies(several: Path) -> None:
    result = write_report(several, "all")
    assert "scale full" in (result.folder / "report.md").read_text()
    assert result.verdicts == ()


def test_runs_that_studies_share_are_counted_once(tmp_path: Path) -> None:
    runs = [Run(norm, seed=seed, total=20) for norm in ("NoNorm", "BatchNorm") for seed in range(4)]
    runs[:3] = [replace(run, diverged_at=5) for run in runs[:3]]
    synthetic.write(tmp_path, runs[:-1])
    for study, its in (("one", runs), ("other", runs), ("part", runs[2:])):
        synthetic.plan(tmp_path, study, [run.run_id for run in its])
    result = write_report(tmp_path, "all")
    assert "Runs: 7 of 8 finished, 3 of them diverged" in (result.folder / "report.md").read_text()
    assert (result.diverged, result.missing) == (3, 1)
    assert result.cautions[0].startswith("Runs are missing: 1 of 8 in one, 1 of 8 in other, 1 of 6 in part.")


@pytest.mark.parametrize(
    ("scale", "sentence"),
    [("huge", "no study has been run at scale=huge in .*, but at full, quick"), (None, "no study has been run in")],
)
def test_a_report_on_all_studies_needs_one(several: Path, tmp_path: Path, scale: str | None, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        write_report(several if scale else tmp_path, "all", scale)


@pytest.mark.parametrize(
    ("text", "value"),
    [("97.2%", "97.2"), ("-3.1 (-4 to 2) x", "-3.1"), ("1e-05", "1e-05"), ("at least 4.8 (2 to 9)", "4.8"), ("-", "")],
)
def test_cells_are_sorted_by_their_first_number(text: str, value: str) -> None:
    assert sort_value(text) == value


def fixed_rate_runs(seeds: int = 12) -> list[Run]:
    """One network with and without batch normalization at one learning rate."""
    accuracy = {"NoNorm": 0.9, "BatchNorm": 0.95}
    arms = itertools.product(accuracy, range(seeds))
    return [Run(n, 0.5, seed, total=60, accuracy=accuracy[n] + 0.002 * (seed % 3)) for n, seed in arms]


def test_runs_without_a_study_get_verdicts_at_their_fixed_learning_rate(tmp_path: Path) -> None:
    synthetic.write(tmp_path, fixed_rate_runs())
    result = write_report(tmp_path)
    found = {v["claim"]: v for v in json.loads((result.folder / "claims.json").read_text())}
    assert (found["regularizes"]["view"], found["regularizes"]["status"]) == ("fixed_rate", "SUPPORTED")
    assert not {"higher_learning_rates", "alternatives", "rescues_sigmoids", "residual_alternatives"} & {*found}
    (sentence,) = [s for s in result.verdicts if s.startswith("SUPPORTED: Within the same number of steps, batch")]
    assert "MLP on Digits, at a fixed learning rate, 0.5: 5 (5 to 5) percentage points" in sentence
    assert "at a fixed learning rate" in (result.folder / "index.html").read_text()


def test_a_study_at_one_learning_rate_gets_verdicts_at_it(tmp_path: Path) -> None:
    ids = synthetic.write(tmp_path, fixed_rate_runs())
    synthetic.plan(tmp_path, "s", ids, claims=["regularizes", "higher_learning_rates"])
    found = verdicts(load_study(tmp_path, "s"))
    assert {v.contrast.claim.name: (v.contrast.view, v.status) for v in found} == {
        "regularizes": ("fixed_rate", "SUPPORTED"),
        "higher_learning_rates": ("all_rates", "INCONCLUSIVE"),
    }


def test_runs_picked_by_hand_get_no_verdicts(tmp_path: Path) -> None:
    ids = synthetic.write(tmp_path, fixed_rate_runs())
    assert write_report(tmp_path, picked=ids).verdicts == ()


def test_a_report_says_that_its_study_was_extended_after_an_earlier_report(tmp_path: Path) -> None:
    runs = fixed_rate_runs()
    synthetic.plan(tmp_path, "s", synthetic.write(tmp_path, runs[:10] + runs[12:22]), claims=["regularizes"])
    first, again = (files(write_report(tmp_path, "s").folder) for _ in range(2))
    assert first == again
    synthetic.plan(tmp_path, "s", synthetic.write(tmp_path, runs), claims=["regularizes"])
    caution = "This study was extended after a report on seeds 0 to 9 was drawn (now seeds 0 to 11)"
    result, of_all = write_report(tmp_path, "s"), write_report(tmp_path, "all")
    assert [text[: len(caution)] for text in result.cautions] == [caution]
    assert [text[: len(caution) + 3] for text in of_all.cautions] == [f"s: {caution}"]
    assert caution in (result.folder / "report.md").read_text().replace("\\", "")


def test_a_report_says_once_what_probes_could_not_see(tmp_path: Path) -> None:
    ids = synthetic.write(tmp_path, fixed_rate_runs())
    synthetic.plan(tmp_path, "s", ids, claims=["regularizes"])
    assert not any("probes see" in caution for caution in write_report(tmp_path, "s").cautions)
    for run_id in ids[::2]:
        synthetic.edit_summary(tmp_path, run_id, probes_cannot_see=["gru computes its activations inside."])
    for run_id in ids[1::2]:
        synthetic.edit_summary(tmp_path, run_id, probes_cannot_see=[])
    result = write_report(tmp_path, "s")
    [sentence] = [caution for caution in result.cautions if "probes see" in caution]
    assert sentence.endswith(": gru computes its activations inside.")
    assert sentence in (result.folder / "index.html").read_text()


def test_the_report_on_all_studies_says_that_two_of_them_had_different_images_of_one_name(tmp_path):
    for name, norm, checksum in (("a", "NoNorm", "00"), ("b", "BatchNorm", "01")):
        [run_id] = synthetic.write(tmp_path, [Run(norm, dead=False)])
        dataset = Store(tmp_path).summary(run_id)["dataset"]
        synthetic.edit_summary(tmp_path, run_id, dataset={**dataset, "checksum": checksum})
        synthetic.plan(tmp_path, name, [run_id])
    assert not load_study(tmp_path, "a").mixed_images
    sentence = write_report(tmp_path, "all").cautions[0]
    assert sentence.startswith("Digits has named different images")
