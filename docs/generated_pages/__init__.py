"""The pages of the reference that repeat the code: written from it whenever the site is built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from generated_pages import api, claims, commands, keys, metrics, notebook

PAGES: dict[str, Callable[[], str]] = {
    "keys": keys.page_of_keys,
    "options": keys.page_of_options,
    "metrics": metrics.page,
    "claims": claims.page_of_claims,
    "studies": claims.page_of_studies,
    "commands": commands.page,
    "api": api.page,
    "notebook": notebook.page,
}


def write_pages(folder: Path) -> None:
    """Write each page as Markdown; one that is as before keeps its time, so that Sphinx does not read it again."""
    for name, page in PAGES.items():
        path, text = folder / f"{name}.md", page().rstrip() + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
