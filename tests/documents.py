"""The pages of the docs, and the blocks in them: files, commands and Python code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
GENERATED = {line.strip().lstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines() if "/docs/" in line}
"""Pages that the site's build writes."""

FOUND = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = {name: path.read_text() for path in FOUND if (name := str(path.relative_to(ROOT))) not in GENERATED}

BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^>]+?) -->\n+)?(?:^`(?P<file>[\w./-]+)`\n\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    file: the name in a line of its own before the block, which then is that file.
    reason: why no test runs it, from a comment before it: `<!-- not run: needs a cluster -->`.
    """

    kind: str
    text: str
    file: str | None
    reason: str | None

    def commands(self) -> Iterator[list[str]]:
        """The words of each command line; none in a block of another kind."""
        lines = self.text.replace("\\\n", " ").splitlines() if not self.kind else []
        return (words for line in lines if (words := shlex.split(line, comments=True)))


def blocks(page: str) -> list[Block]:
    found = BLOCK.finditer(PAGES[page])
    return [Block(match["kind"], match["text"], match["file"], match["reason"]) for match in found]


def write_files(folder: Path) -> None:
    """Write the files that the pages show."""
    for block in (block for page in PAGES for block in blocks(page)):
        if block.file is not None:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
