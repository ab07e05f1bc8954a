"""All files of the published results, as bytes that the packed store determines: written by one command, compared by
another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from bnstudy.claims.arms import dataset_name
from bnstudy.claims.verdicts import Verdict
from bnstudy.report.figures.style import render, report_style
from bnstudy.report.figures.verdicts import draw_verdicts
from bnstudy.report.page import Progress, silent
from bnstudy.report.phrases import primary_of
from bnstudy.report.published import read_published
from bnstudy.report.study_report import Folders
from bnstudy.report.tables import VERDICT_COLUMNS, verdict_table
from bnstudy.store.plans import Plans
from scripts.published import found, table
from scripts.published.provenance import pack_words, provenance
from scripts.published.record import PUBLISHED, WORK, Record

COLOURS = 64
"""Of the picture, which takes a third of its bytes with them."""

ROOT = Path(__file__).parents[2]
README, PAGE = Path("README.md"), Path("docs/what-we-found.md")
DIGITS = Path("digits/claims.json")
"""Among the published files: the verdicts on digits, whose runs are not published."""


def digits_entries(store: Path, progress: Progress = silent) -> list[dict[str, Any]]:
    """What `verdicts.csv` shows of the entries of `claims.json` of all studies on digits."""
    entries = read_published(Folders(store), "quick", progress).entries
    return [{key: entry[key] for key in VERDICT_COLUMNS} for entry in entries]


def published_files(digits: list[dict[str, Any]], progress: Progress = silent) -> dict[Path, bytes]:
    """Each file that the packed store determines, by its path in the repository, which is the current folder.

    digits: the entries of `digits/claims.json`.
    """
    published = read_published(Folders(PUBLISHED), "standard", progress)
    claims = {claim.card.claim.name: claim for claim in published.claims}
    texts = published.files()
    texts["verdicts.csv"] = verdict_table([*published.entries, *not_judged_by(published.entries, digits)])
    images = found.figures(claims) | {"forest.png": forest(published.studies.found)}
    studies = Plans(PUBLISHED).studies()
    readme = (ROOT / README).read_text(encoding="utf-8")
    return {
        **{PUBLISHED / name: text.encode() for name, text in texts.items()},
        PUBLISHED / "PROVENANCE.md": provenance(Record(PUBLISHED), pack_words(studies, WORK / "standard")).encode(),
        **{PUBLISHED / "figures" / name: content for name, content in images.items()},
        README: table.replace_block(readme, readme_block(texts["verdicts.csv"], published.content)).encode(),
        PAGE: found.page(claims).encode(),
    }


def not_judged_by(published: list[dict[str, Any]], digits: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries of digits for claims that no published runs on digits judge."""
    own = {(entry["claim"], dataset_name(entry["data"])) for entry in published}
    return [entry for entry in digits if (entry["claim"], dataset_name(entry["data"])) not in own]


def read_digits() -> list[dict[str, Any]]:
    """The published entries of digits; none where they are not published."""
    file = PUBLISHED / DIGITS
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else []


def forest(verdicts: list[Verdict]) -> bytes:
    """The picture of all claims on MNIST."""
    others = (table.DIGITS, table.CIFAR10)
    primary = [v for v in primary_of(verdicts) if dataset_name(v.contrast.case.data) not in others]
    with report_style():
        picture = Image.open(BytesIO(render(draw_verdicts(primary, "Claims about normalization, on MNIST"), "png")))
    smaller = BytesIO()
    picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(smaller, "PNG", optimize=True)
    return smaller.getvalue()


def readme_block(csv: str, content: Mapping[str, Any]) -> str:
    text = (
        f"{content['answer']} Some claims are about several networks or settings, and each of these has a verdict of "
        "its own. Most verdicts on digits are of smaller experiments, with another smallest effect of interest: they "
        "have a column of their own, and are not counted here. [How a claim is judged](docs/concepts/verdicts.md) "
        f"explains the words, and why a verdict may be withheld. [The published page]({PUBLISHED}/index.html) has the "
        f"evidence for each claim, [What we found]({PAGE}) explains them, and "
        f"[PROVENANCE]({PUBLISHED}/PROVENANCE.md) says how they were made."
    )
    picture = (
        f"![The verdicts on all claims on MNIST, each with its effect and 95% interval]({PUBLISHED}/figures/forest.png)"
    )
    return "\n\n".join([picture, table.wrap(text.strip()), table.table(csv)])
