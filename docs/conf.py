"""Sphinx's configuration: `make docs` builds the site from the Markdown pages of this folder.

Pages are plain Markdown, which GitHub shows as well; so the navigation is here and not in the pages.
"""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.application import Sphinx

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

project = "bnstudy"
author = "the bnstudy authors"
project_copyright = "2026 the bnstudy authors"
release = version = version_of("bnstudy")

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = "bnstudy"
html_show_sourcelink = False

NAVIGATION = {
    "": ["getting-started"],
    "How to ...": [
        "how-to/sweep",
        "how-to/gpu",
        "how-to/cluster",
        "how-to/python",
        "how-to/extend",
        "how-to/own-norm",
        "how-to/own-network",
        "how-to/own-model",
        "how-to/own-probe",
        "how-to/own-study",
        "how-to/own-claim",
        "how-to/own-figure",
        "how-to/own-others",
    ],
    "Concepts": [
        "concepts/runs",
        "concepts/verdicts",
        "concepts/report",
        "concepts/results",
        "concepts/speed",
    ],
    "Reference": [
        "reference/index",
        "reference/store",
    ],
    "About": ["limitations", "design"],
}


def add_navigation(_: Sphinx, docname: str, source: list[str]) -> None:
    """Append the table of contents to the first page."""
    if docname == "index":
        trees = [
            "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}" if caption else "", *pages, "```"])
            for caption, pages in NAVIGATION.items()
        ]
        source[0] += "\n\n" + "\n\n".join(trees) + "\n"


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_navigation)
