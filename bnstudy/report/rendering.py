"""A report as files: an HTML page that runs no foreign script, Markdown with all values escaped, figures."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bnstudy.claims.verdicts import Verdict
from bnstudy.report.forest import short_name
from bnstudy.report.images import Image, write_images
from bnstudy.report.sources import link_source
from bnstudy.store.files import remove_abandoned, write_text
from bnstudy.store.links import refuse_links
from bnstudy.validation import ConfigError, printable

TEMPLATES = Path(__file__).parent / "templates"


def render_html(template: str, content: Mapping[str, Any]) -> str:
    """Render a page. Its Content-Security-Policy allows its own script only, and loads nothing."""
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
    own = {"script": Markup(script), "policy": policy}
    return printable(_environment(autoescape=True).get_template(template).render({**content, **own}))


def render_fragment(template: str, content: Mapping[str, Any]) -> str:
    """Render a part of somebody else's page, such as a notebook: all values are escaped."""
    return printable(_environment(autoescape=True).get_template(template).render(content))


def render_markdown(template: str, content: Mapping[str, Any]) -> str:
    """Render Markdown. Every value is escaped, as `autoescape` does for HTML."""
    text = _environment(autoescape=False, finalize=escape_markdown).get_template(template).render(content)
    return printable(re.sub(r"\n{3,}", "\n\n", text))


def publish(
    results_dir: Path,
    name: str,
    template: str,
    content: Mapping[str, Any],
    images: Sequence[Image],
    files: Mapping[str, str],
) -> Path:
    """Write the report `<results_dir>/reports/<name>/`: `<template>.html.j2` and `<template>.md.j2` filled with
    `content`, the figures and other files.

    Args:
        files: text by file name.

    Returns:
        The path of the page.

    Raises:
        ConfigError: the report cannot be written, or a folder is a symbolic link.
    """
    folder = results_dir / "reports" / name
    refuse_links(results_dir, [folder / "figures"])
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for written in (folder, folder / "figures"):
            remove_abandoned(written, seconds=60)
        write_images(folder / "figures", images)
        for name, text in files.items():
            write_text(folder / name, text)
        write_text(folder / "report.md", render_markdown(f"{template}.md.j2", content))
        write_text(folder / "index.html", render_html(f"{template}.html.j2", content))
    except OSError as error:
        blocker = next((p for p in (folder / "figures", folder, *folder.parents) if p.is_file()), None)
        reason = f"{blocker} is a file, not a folder" if blocker else error.strerror or error
        raise ConfigError(f"The report cannot be written to {folder}: {reason}.") from error
    return folder / "index.html"


def _environment(**options: Any) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, **options,
    )  # fmt: skip
    filters = (sort_value, digits, survival, case_text, trimmed, short_name, link_source)
    environment.filters |= {function.__name__: function for function in filters}
    return environment


def digits(value: float | None, n: int = 4) -> str:
    """A number with n significant digits; a dash for none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{n}g}"


def survival(verdict: Verdict) -> str:
    """Whether the verdict survives the correction; a dash where there is nothing to survive."""
    return "-" if verdict.status == "INCONCLUSIVE" else "yes" if verdict.survives else "no"


def case_text(verdict: Verdict) -> str:
    """The case, with its learning rate where only one was tried."""
    return f"{verdict.case}, {verdict.view}" if verdict.contrast.view == "fixed_rate" else verdict.case


def trimmed(sentence: str) -> str:
    """A sentence as a heading or a link."""
    return sentence.rstrip(".")


def sort_value(text: object) -> str:
    """The number at the start of a cell, by which the column is sorted; empty if there is none."""
    found = re.match(r"(?:at least |at most )?([-+]?[0-9.]+(?:e[-+]?[0-9]+)?)", str(text))
    return found[1].lstrip("+") if found else ""


def escape_markdown(value: Any) -> str:
    """A value as Markdown that shows it literally; `Markup` is not changed."""
    if isinstance(value, Markup):
        return str(value)
    one_line = re.sub(r"\s+", " ", str(value))
    escaped = re.sub(r"([\\`*_{}\[\]#|~$]|^[-+=])", r"\\\1", one_line)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
