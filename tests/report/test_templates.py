from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest

from bnstudy.report.report import write_report
from bnstudy.report.result import ReportResult
from bnstudy.store.runs import Store
from tests import synthetic
from tests.report.pages import Page, claim_file
from tests.synthetic import Run

pytestmark = pytest.mark.usefixtures("blank_figures")
KINDS = ("curves", "dead-map", "dead-units", "gradients", "learning-rates")
HOSTILE = "<script>alert(1)</script>|`x`[y](javascript:z)"


def test_the_page_stands_alone(result: ReportResult) -> None:
    text = result.index.read_text()
    page = Page(text)
    loaded = [a.get("src") or a.get("href") or a.get("xlink:href") or "" for tag, a in page.tags if tag != "a"]
    assert not [url for url in loaded if re.match(r"(?i)[a-z]+:|//", url)]
    assert not page.all("link") + page.all("img") + page.all("iframe")
    assert page.all("script") == [{}]  # its own, in the page
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_the_page_is_accessible(result: ReportResult) -> None:
    page = Page(result.index.read_text())
    drawings = [d for d in page.all("svg") if "viewbox" in d]
    assert len(drawings) == 2 * (len(KINDS) + 1)  # for a page and for a phone
    assert all(d["role"] == "img" and "MLP on Digits" in str(d["aria-label"]) for d in drawings)
    assert all("width" not in d for d in drawings)
    assert [d["aria-label"] for d in page.all("svg") if "strip" in str(d.get("class"))]
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


def test_verdicts_come_first(text: str) -> None:
    assert text.index("Batch normalization tolerates higher learning rates") < text.index("NoNorm at its best")
    assert "INCONCLUSIVE" in text
    assert "grid incomplete" in text or "runs incomplete" in text


def test_the_order_is_answer_evidence_doubt_reproduction(result: ReportResult) -> None:
    text = result.index.read_text()
    marks = [
        *("<h1>", 'class="answer"', 'class="forest', 'class="provenance"', "What limits these results"),
        *(
            "What counts against it",
            "Caveats",
            "Numbers: every case",
            "Arms and training curves",
            "Methods",
            "Appendix",
        ),
    ]
    places = [text.index(mark, text.index("<main") if mark[0].isupper() else 0) for mark in marks]
    assert places == sorted(places)


def test_every_row_of_the_forest_links_a_card(result: ReportResult) -> None:
    text = result.index.read_text()
    forest = text[text.index('<table class="forest') :].partition("</table>")[0]
    links = [str(a["href"]) for a in Page(forest).all("a")]
    assert links == ["#claim-higher-learning-rates"]
    assert f'id="{links[0][1:]}"' in text


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


def test_a_table_scrolls_by_itself_and_is_a_list_of_cards_on_a_phone(result: ReportResult) -> None:
    page = Page(result.index.read_text())
    regions = [a for a in page.all("div") if a.get("class") == "scroll"]
    tables = [str(a["class"]).split() for a in page.all("table")]
    assert len(regions) == len(tables) - 1 == 3  # but the forest, which has room on every screen
    assert regions[0]["tabindex"] == "0"
    assert all({"forest", "cards"} & {*classes} for classes in tables)


def test_the_time_of_probes_is_shown(tmp_path: Path) -> None:
    (run_id,) = synthetic.write(tmp_path, [Run(total=20)])
    total = Store(tmp_path).summary(run_id)["seconds"]["total"]
    synthetic.edit_summary(tmp_path, run_id, probe_seconds={"gradients": total / 4, "norms": total / 8})
    folder = write_report(tmp_path).folder
    assert "| gradients | 1 |" in (folder / "report.md").read_text()
    page = (folder / "index.html").read_text()
    assert '>norms</td><td class="n" data-value="1" data-label="Runs">1</td>' in page
    assert 'data-value="12.5" data-label="Share of the run">12.5%</td>' in page


@pytest.mark.parametrize("name", ["index.html", "report.md"])
def test_numbers_that_do_not_exist_are_dashes(tmp_path: Path, name: str) -> None:
    synthetic.plan(tmp_path, "s", synthetic.write(tmp_path, [Run(total=20)]), claims=["dead_relus"])
    cells = {
        "index.html": '<td class="n" data-value="" data-label="With">-</td>',
        "report.md": r"| \- | \- | \- | \- | 0 | \- |",
    }
    assert cells[name] in (write_report(tmp_path, "s").folder / name).read_text()


def test_caveats_and_sources_are_shown_without_running_scripts(tmp_path: Path) -> None:
    own = claim_file(tmp_path / "claims", caveats=[HOSTILE, "Second."], source=HOSTILE, statement=f"{HOSTILE} helps.")
    synthetic.plan(tmp_path, "s", synthetic.write(tmp_path, synthetic.lr_sweep(seeds=2, total=40)), claims=["mine"])
    folder = write_report(tmp_path, "s", claim_dirs=[own]).folder
    page = Page((folder / "index.html").read_text())
    assert page.all("script") == [{}]
    assert "Second." in (folder / "report.md").read_text()
    assert "<script" not in (folder / "report.md").read_text()
