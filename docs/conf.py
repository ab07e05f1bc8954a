"""Sphinx's configuration: `make docs` builds the site from the Markdown pages of this folder.

Pages are plain Markdown, which GitHub shows as well; so the navigation is here and not in the pages.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import fields, is_dataclass
from importlib.metadata import version as version_of
from itertools import pairwise
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from generated_pages import PAGES, write_pages
from generated_pages.markdown import split_doc

from bnstudy.calling import CallableModule

project = "bnstudy"
author = "the bnstudy authors"
project_copyright = "2026 the bnstudy authors"
release = version = version_of("bnstudy")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 4
default_role = "code"  # docstrings are Markdown
autodoc_typehints = "description"
autodoc_member_order = "bysource"
html_theme = "furo"
html_title = "bnstudy"
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
highlight_language = "text"  # of blocks without a language, which are shell commands

navigation = {
    "": ["getting-started", "what-we-found"],
    "How to ...": [
        "how-to/sweep",
        "how-to/manage-runs",
        "how-to/gpu",
        "how-to/cluster",
        "how-to/python",
        "how-to/loggers",
        "how-to/extend",
    ],
    "Concepts": [
        "concepts/runs",
        "concepts/networks",
        "concepts/data",
        "concepts/probes",
        "concepts/stacks",
        "concepts/verdicts",
        "concepts/report",
        "concepts/results",
        "concepts/speed",
    ],
    "Reference": [
        "reference/index",
        *(f"reference/{name}" for name in PAGES if name != "notebook"),
        "reference/store",
    ],
    "About": ["limitations", "design"],
}
below = {
    "how-to/extend": [
        "how-to/own-norm",
        "how-to/own-network",
        "how-to/own-model",
        "how-to/own-probe",
        "how-to/own-study",
        "how-to/own-claim",
        "how-to/own-figure",
        "how-to/own-others",
    ],
    "how-to/python": ["reference/notebook"],
}
"""Pages below a page: the side bar shows them on demand."""


def add_navigation(app: Sphinx, docname: str, source: list[str]) -> None:
    """Append the table of contents to the first page, and to each page that has pages below it."""
    trees = app.config.navigation if docname == "index" else {"": app.config.below.get(docname, [])}
    for caption, pages in trees.items():
        places = [f"/{page}" for page in pages]
        lines = ["```{toctree}", ":hidden:", f":caption: {caption}" if caption else "", *places, "```"]
        source[0] += "\n\n" + "\n".join(lines) + "\n" if pages else ""
    if docname == "how-to/python":  # on GitHub the notebook is a page itself
        source[0] = source[0].replace("../notebooks/first_sweep.ipynb", "../reference/notebook.md")


def list_fields(_: Sphinx, what: str, _name: str, thing: object, _options: object, lines: list[str]) -> None:
    """Give Napoleon what it expects.

    The docstring of the function that a module calls. The fields of a dataclass that its docstring describes in lines
    like `name: text`. No type of what a function returns: it would take the text up to the first colon for one.
    """
    if isinstance(thing, CallableModule):
        lines[:] = [*inspect.cleandoc(inspect.unwrap(thing).__doc__ or "").splitlines(), ""]
    if what == "class" and is_dataclass(thing):
        text, said = split_doc("\n".join(lines), [f.name for f in fields(thing)])
        entries = ["", "Args:", *(f"    {field}: {words}" for field, words in said.items())] if said else []
        lines[:] = [*text.splitlines(), *entries]
    for heading, line in pairwise([*lines]):
        if heading.strip() == "Returns:":
            lines[lines.index(line)] = f"    : {line.strip()}"


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", list_fields, priority=100)  # before Napoleon
    write_pages(Path(app.srcdir) / "reference")
    for name in ("navigation", "below"):
        app.add_config_value(name, {}, "env")  # a change of it reads all pages again
    app.connect("source-read", add_navigation)
