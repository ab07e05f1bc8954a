"""The report on a study: one page that stands alone, the same as Markdown, figures, and the runs as a table."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from bnstudy.analysis import findings, verdicts
from bnstudy.analysis.costs import probe_costs
from bnstudy.analysis.figures import Drawn, Palette, draw_panel, render
from bnstudy.analysis.figures.style import styled
from bnstudy.analysis.findings import ArmRow
from bnstudy.analysis.frames import Study, load_study
from bnstudy.analysis.gaps import missing_by_arm
from bnstudy.analysis.panels import Panel, panels
from bnstudy.analysis.reproductions import Reproduction, reproduce
from bnstudy.files import write_atomic, write_json, write_text
from bnstudy.spec import ConfigError

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class ReportResult:
    """What was written, and what it comes to. missing: planned runs that are not finished."""

    folder: Path
    index: Path
    verdicts: tuple[str, ...]
    findings: tuple[str, ...]
    cautions: tuple[str, ...]
    diverged: int
    missing: int


@dataclass(frozen=True)
class Image:
    """A figure as files named `name`.svg and .png, and as the page shows it."""

    name: str
    title: str
    caption: str
    alt: str
    svg: bytes
    png: bytes

    @property
    def inline(self) -> Markup:
        return Markup(inline_svg(self.svg.decode(), self.name, self.alt))


@dataclass(frozen=True)
class Section:
    """One panel of the report."""

    name: str
    rows: list[ArmRow]
    images: list[Image]


def write_report(
    results_dir: Path,
    study: str | None = None,
    scale: str | None = None,
    picked: Collection[str] = (),
    claim_dirs: Sequence[Path] = (),
) -> ReportResult:
    """Write `<results_dir>/reports/<study>/`; without a study, on every run of the store, `reports/all/`.

    scale: of the study, by default the one planned last. picked: ids of runs, for a report on these alone, in
    `reports/runs-<ids>/`. claim_dirs: folders with claims of one's own. The same store gives the same bytes.

    Raises:
        ConfigError: as `load_study` and `verdicts.verdicts`; or the report cannot be written.
    """
    about = load_study(results_dir, study, scale, picked)
    folder, found = results_dir / "reports" / about.name, verdicts.verdicts(about, claim_dirs)
    with _refused_writing(folder):
        (folder / "figures").mkdir(parents=True, exist_ok=True)
    sections, reproduction = draw(about), reproduced(about)
    content = {**_content(about, sections), "reproduction": reproduction, "reproduction_images": _images(reproduction)}
    content["verdicts"] = verdicts.rows(found)
    if reproduction is not None:  # what there is to say is in its table: arms are not to be compared by accuracy
        content["findings"] = reproduction.findings
    with _refused_writing(folder):
        of_sections = [image for section in sections for image in section.images]
        _write_figures(folder / "figures", [*content["reproduction_images"], *of_sections])
        write_text(folder / "runs.csv", _table(about.runs))
        write_json(folder / "claims.json", verdicts.as_json(found))
        write_text(folder / "report.md", _markdown().get_template("report.md.j2").render(content))
        write_text(folder / "index.html", _html().get_template("index.html.j2").render(content))
    return ReportResult(
        folder=folder,
        index=folder / "index.html",
        verdicts=tuple(row.sentence for row in content["verdicts"]),
        findings=tuple(content["findings"]),
        cautions=tuple(content["cautions"]),
        diverged=int(about.runs["diverged"].sum()),
        missing=about.n_missing,
    )


@contextmanager
def _refused_writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        in_the_way = next((p for p in (folder / "figures", folder, *folder.parents) if p.is_file()), None)
        reason = f"{in_the_way} is a file, not a folder" if in_the_way else error.strerror or error
        raise ConfigError(f"The report cannot be written to {folder}: {reason}.") from error


def _table(runs: pd.DataFrame) -> str:
    columns = ["run_id", *sorted(c for c in runs.columns if c != "run_id")]
    return runs[columns].to_csv(index=False, lineterminator="\n")


def draw(study: Study) -> list[Section]:
    """The sections of the report, their figures rendered."""
    palette, taken = Palette.of(study.runs), set[str]()
    with styled():
        return [_section(panel, palette, taken) for panel in panels(study)]


def reproduced(study: Study) -> Reproduction | None:
    with styled():
        return reproduce(study)


def _images(reproduction: Reproduction | None) -> list[Image]:
    if reproduction is None or reproduction.drawn is None:
        return []
    with styled():
        return [_image(reproduction.drawn, f"published-{reproduction.drawn.kind}")]


def _section(panel: Panel, palette: Palette, taken: set[str]) -> Section:
    images = [_image(drawn, file_name(f"{drawn.kind}-{panel.name}", taken)) for drawn in draw_panel(panel, palette)]
    return Section(panel.name, findings.arm_rows(panel.runs), images)


def _image(drawn: Drawn, name: str) -> Image:
    svg, png = render(drawn.figure, "svg"), render(drawn.figure, "png")
    return Image(name, drawn.title, drawn.caption, drawn.alt, svg, png)


def file_name(text: str, taken: set[str]) -> str:
    """A name of letters, digits and dashes for `text` that is not yet `taken`, and is from then on."""
    base = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:100]
    name, i = base, 1
    while name in taken:
        i += 1
        name = f"{base}-{i}"
    taken.add(name)
    return name


def inline_svg(svg: str, name: str, alt: str) -> str:
    """An SVG file as an element of a page: scaling with it, described by `alt`, its ids its own by a prefix."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    head, rest = body.split(">", 1)
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{Markup.escape(alt)}">{rest}'


def _content(study: Study, sections: list[Section]) -> dict[str, Any]:
    missing, others = missing_by_arm(study)
    return {
        "study": study,
        "facts": findings.facts(study),
        "findings": findings.findings(study),
        "cautions": findings.cautions(study),
        "missing": missing,
        "missing_others": others,
        "failures": study.failures,
        "diverged": findings.diverged_lines(study),
        "sections": sections,
        "costs": probe_costs(study.runs),
    }


def _write_figures(folder: Path, images: list[Image]) -> None:
    """Write them all, and remove those of an earlier report that are no more."""
    files = {f"{i.name}.svg": i.svg for i in images} | {f"{i.name}.png": i.png for i in images}
    for name, content in files.items():
        write_atomic(folder / name, partial(_write_bytes, content))
    for old in sorted([*folder.glob("*.svg"), *folder.glob("*.png")]):
        if old.name not in files:
            old.unlink()


def _write_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _html() -> jinja2.Environment:
    return _environment(autoescape=True)


def _markdown() -> jinja2.Environment:
    """Everything that is filled in is escaped, as `autoescape` does for HTML."""
    return _environment(autoescape=False, finalize=markdown_text)


def _environment(**options: Any) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, **options,
    )  # fmt: skip


def markdown_text(value: Any) -> str:
    """A value as Markdown that shows it and does nothing else; `Markup` is left as it is."""
    if isinstance(value, Markup):
        return str(value)
    one_line = re.sub(r"\s+", " ", str(value))
    escaped = re.sub(r"([\\`*_{}\[\]#|~$]|^[-+=])", r"\\\1", one_line)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
