"""The page "What we found": what accounts say, by hand, and what was measured, from the published runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from bnstudy.report.published import PublishedClaim
from bnstudy.report.rendering import escape_markdown
from scripts.published.table import wrap

ROOT = Path(__file__).parents[2]
ACCOUNTS = ROOT / "docs" / "accounts.yaml"
PAGE = ROOT / "docs" / "what-we-found.md"
MOST_DOUBTS = 4
"""Sentences against a claim; the published page has all."""

INTRODUCTION = """\
# What we found

<!-- `make results` writes this page: the accounts are in docs/accounts.yaml, the rest is from the published runs. -->

What popular accounts say about normalization, and what small networks show. A verdict holds for the networks and the
data that it names; [how a claim is judged](concepts/verdicts.md) explains the four words. The smallest effect that
matters was fixed for each claim before the runs."""
NOTHING = "No results are published in this copy: `make results` trains them, in hours on two cores."


@dataclass(frozen=True)
class Topic:
    title: str
    accounts: str
    claims: tuple[str, ...]


def load_topics() -> list[Topic]:
    nodes = yaml.safe_load(ACCOUNTS.read_text(encoding="utf-8"))
    return [Topic(node["title"], node["accounts"].strip(), tuple(node["claims"])) for node in nodes]


def page(published: Mapping[str, PublishedClaim]) -> str:
    """The page in Markdown. published: claims by name; none before anything is published."""
    parts = [INTRODUCTION] if published else [INTRODUCTION, NOTHING]
    for topic in load_topics():
        parts += [f"## {topic.title}", wrap(f"**What accounts say.** {topic.accounts}")]
        shown = [published[name] for name in topic.claims if name in published]
        for nth, claim in enumerate(shown):
            parts += paragraphs(claim)
            if nth == 0:
                image = claim.card.effect
                parts.append(f"![{escape_markdown(image.alt)}](../results/published/figures/{image.name}.svg)")
        if shown:
            commands = dict.fromkeys(part.report for claim in shown for part in claim.parts)
            parts.append("\n".join(["Their reports, with every figure:", "", "```", *commands, "```"]))
    return "\n\n".join(parts) + "\n"


def paragraphs(claim: PublishedClaim) -> list[str]:
    """What was measured, and what counts against it."""
    card = claim.card
    doubts = card.counterevidence[:MOST_DOUBTS]
    left = len(card.counterevidence) - len(doubts)
    more = [f"{left} more on the published page."] if left else []
    measured = " ".join([f"**{escape_markdown(card.claim.statement)}**", *map(escape_markdown, card.sentences)])
    against = "\n".join(f"- {escape_markdown(sentence)}" for sentence in [*doubts, *more])
    return [measured, f"What counts against it:\n\n{against}"]


def figures(published: Mapping[str, PublishedClaim]) -> dict[str, bytes]:
    """The figures that the page shows, by file name: that of the first published claim of each topic."""
    firsts = [next((published[name] for name in topic.claims if name in published), None) for topic in load_topics()]
    return {f"{claim.card.effect.name}.svg": claim.card.effect.svg for claim in firsts if claim}
