"""From docstrings to Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence

HEADING = re.compile(r"(Args|Returns|Raises):")
ENTRY = re.compile(r"(?:and )?((?:`?[\w<>.]+`?, )*`?[\w<>.]+`?): ")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; "" without rows."""
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *lines]) + "\n" if lines else ""


def join(parts: Iterable[str]) -> str:
    """A page of its parts, without the empty ones."""
    return "\n\n".join(part.strip() for part in parts if part.strip())


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def own_doc(cls: type) -> str:
    """The docstring of the class itself; "" if it has none, or one that `dataclass` made up."""
    text = inspect.cleandoc(vars(cls).get("__doc__") or "")
    return "" if text.startswith(f"{cls.__name__}(") else text


def split_doc(text: str, names: Iterable[str]) -> tuple[str, dict[str, str]]:
    """The prose of a docstring, and what it says of each of `names` in lines like `name: text`."""
    known, prose, found = {*names}, [], {}
    current: list[str] = []
    for line in text.splitlines():
        begins = ENTRY.match(line.strip())
        words = [word.strip("`_") for word in begins[1].split(", ")] if begins else []
        if begins and {*words} & known and not line.strip().startswith("`"):
            current = words
            found |= dict.fromkeys(words, line.strip()[begins.end() :])
        elif current and line.startswith("    "):
            found |= {word: f"{found[word]} {line.strip()}" for word in current}
        elif not HEADING.fullmatch(line.strip()):
            current = []
            prose.append(line)
    return "\n".join(prose).strip(), found


def prose(text: str) -> str:
    """Markdown of a docstring's prose: lines that define a metric become items of a list."""
    lines: list[str] = []
    in_item = False
    for line in text.splitlines():
        is_item = line.startswith("- ") or (line.startswith("`") and ENTRY.match(line) is not None)
        if is_item and not in_item and lines and lines[-1]:
            lines.append("")
        in_item = is_item or (in_item and bool(line.strip()))
        lines.append(f"- {line.removeprefix('- ')}" if is_item else f"  {line.strip()}" if in_item else line)
    return "\n".join(lines)
