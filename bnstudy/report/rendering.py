"""Reports as files: a page that nothing from outside can run in, Markdown that only shows what it is given, figures."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bnstudy.report.images import Image, write_images
from bnstudy.store.files import write_text
from bnstudy.validation import ConfigError

TEMPLATES = Path(__file__).parent / "templates"


def html(template: str, content: Mapping[str, Any]) -> str:
    """A page. Its own script runs and no other one, and it loads nothing: its Content-Security-Policy says so."""
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
    own = {"script": Markup(script), "policy": policy}
    return _environment(autoescape=True).get_template(template).render({**content, **own})


def markdown(template: str, content: Mapping[str, Any]) -> str:
    """Everything that is filled in is escaped, as `autoescape` does for HTML."""
    text = _environment(autoescape=False, finalize=markdown_text).get_template(template).render(content)
    return re.sub(r"\n{3,}", "\n\n", text)


def publish(
    folder: Path, template: str, content: Mapping[str, Any], images: Sequence[Image], files: Mapping[str, str]
) -> Path:
    """Write a report: the page and the Markdown of the templates `<template>.html.j2` and `.md.j2`, the figures, and
    the further files, by their names. Returns the page.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        write_images(folder / "figures", images)
        for name, text in files.items():
            write_text(folder / name, text)
        write_text(folder / "report.md", markdown(f"{template}.md.j2", content))
        write_text(folder / "index.html", html(f"{template}.html.j2", content))
    except OSError as error:
        in_the_way = next((p for p in (folder / "figures", folder, *folder.parents) if p.is_file()), None)
        reason = f"{in_the_way} is a file, not a folder" if in_the_way else error.strerror or error
        raise ConfigError(f"The report cannot be written to {folder}: {reason}.") from error
    return folder / "index.html"


def _environment(**options: Any) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, **options,
    )  # fmt: skip
    environment.filters |= {"sort_value": sort_value, "digits": digits}
    return environment


def digits(value: float | None) -> str:
    """A number with four digits, a dash for none."""
    return "-" if value is None else f"{value:.4g}"


def sort_value(text: object) -> str:
    """The number that a cell begins with, by which its column is sorted; empty where there is none."""
    found = re.match(r"[-+]?[0-9.]+(?:e[-+]?[0-9]+)?", str(text))
    return found[0].lstrip("+") if found else ""


def markdown_text(value: Any) -> str:
    """A value as Markdown that shows it and does nothing else; `Markup` is left as it is."""
    if isinstance(value, Markup):
        return str(value)
    one_line = re.sub(r"\s+", " ", str(value))
    escaped = re.sub(r"([\\`*_{}\[\]#|~$]|^[-+=])", r"\\\1", one_line)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
