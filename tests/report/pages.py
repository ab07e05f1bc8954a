"""Reading the files of a report."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import yaml

from bnstudy.store.files import conf_dir


class Page(HTMLParser):
    """Tags with their attributes, and the ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def claim_file(folder: Path, name: str = "mine", **changes: object) -> Path:
    """A claim of one's own, like that on learning rates; returns its folder."""
    node = yaml.safe_load((conf_dir() / "claim" / "higher_learning_rates.yaml").read_text())
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({**node, **changes}))
    return folder
