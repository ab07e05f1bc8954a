"""The source of a claim, a free text, with links in it."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

LINK = re.compile(
    r"(?P<url>https?://[^\s<>\"']+)"
    r"|\bdoi:\s*(?P<doi>10\.\d{4,9}/[^\s;,<>\"']+)"
    r"|\barxiv:\s*(?P<arxiv>\d{4}\.\d{4,5}(?:v\d+)?|[a-z-]+/\d{7})",
    re.IGNORECASE,
)
ENDS = ".,;:)]"
"""Characters that end a sentence, not an address."""


def link_source(text: str) -> Markup:
    """The text with each DOI, arXiv number and address as a link; everything is escaped.

    `doi:10.1109/x` links https://doi.org/10.1109/x, `arXiv:1502.03167` https://arxiv.org/abs/1502.03167.
    """
    parts, last = [], 0
    for match in LINK.finditer(text):
        shown = match[0].rstrip(ENDS)
        parts += [escape(text[last : match.start()]), _link(match, len(match[0]) - len(shown), shown)]
        last = match.start() + len(shown)
    return Markup("").join([*parts, escape(text[last:])])


def _link(match: re.Match[str], cut: int, shown: str) -> Markup:
    kind = str(match.lastgroup)
    value = match[kind][: len(match[kind]) - cut]
    target = {"url": "", "doi": "https://doi.org/", "arxiv": "https://arxiv.org/abs/"}[kind] + value
    return Markup('<a href="{}" rel="noreferrer">{}</a>').format(target, shown)
