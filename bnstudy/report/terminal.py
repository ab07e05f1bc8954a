"""What a command shows on a terminal: colours, aligned columns, one line for what it is doing, and a report's results.

Imported at every start: nothing heavy here.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import zip_longest
from typing import TYPE_CHECKING, TextIO

from bnstudy.validation import printable

if TYPE_CHECKING:
    from bnstudy.claims.verdicts import Verdict
    from bnstudy.report.result import ReportResult

COLOURS = {"SUPPORTED": 32, "NEGLIGIBLE": 36, "INCONCLUSIVE": 33, "CONTRADICTED": 31}
"""ANSI's codes. Not the only sign: a coloured verdict is a word."""

ANSI = re.compile(r"\x1b\[\d*m")
MIN_WIDTH = 16
"""A column is not made narrower."""

MIN_LINE = 40
"""In a terminal of fewer columns longer lines go on below, as the terminal does it."""

MAX_CAUTIONS = 3
MAX_FINDINGS = 4
MAX_EXPLAINED = 6
"""With more rows than these, the reasons of inconclusive verdicts are only on the page."""

WIDENED_NOTE = (
    "Widened by a grid step: learning rates were tried in steps, and the true limit lies between two of them."
)

SHORT = 240
"""Letters of a caution; the page has all."""

stage = logging.getLogger("bnstudy.stage")
"""Receives what a command is doing, as INFO, before it has anything to show; an empty text when it has."""
stage.propagate = False  # a caller from Python may show each INFO, and `say`, which shows the package's, ends a stage


def width_of(stream: TextIO) -> int | None:
    """The columns of a terminal, at least MIN_LINE. None where lines are not wrapped: elsewhere, unless COLUMNS is
    set."""
    is_known = stream.isatty() or os.environ.get("COLUMNS")
    return max(MIN_LINE, shutil.get_terminal_size().columns) if is_known else None


def is_coloured(stream: TextIO) -> bool:
    """On a terminal, unless NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str) -> str:
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"


def unpainted(text: str, colour: str) -> str:  # noqa: ARG001
    return text


def align(
    rows: Sequence[Sequence[str] | str],
    right: Collection[int] = (),
    flexible: Collection[int] = (),
    width: int | None = None,
) -> str:
    """The rows in columns, two spaces apart. A text among them stands alone; one that begins with a space is indented
    to the second column.

    right: the columns of numbers. flexible: those that are wrapped at words to fit into `width`.
    """
    cells = [row for row in rows if not isinstance(row, str)]
    widths = [max(_length(line) for row in cells for line in row[i].split("\n")) for i in range(len(cells[0]))]
    if width is not None:
        widths = _fit(widths, flexible, width)
    lines = []
    for row in rows:
        if isinstance(row, str):
            indent = " " * (widths[0] + 2) * row.startswith(" ")
            lines.append(indent + wrap(row.lstrip(" "), width and width - len(indent)).replace("\n", f"\n{indent}"))
            continue
        wrapped = [
            _wrap(text, w if i in flexible else None) for i, (text, w) in enumerate(zip(row, widths, strict=True))
        ]
        for parts in zip_longest(*wrapped, fillvalue=""):
            padded = [_pad(part, w, i in right) for i, (part, w) in enumerate(zip(parts, widths, strict=True))]
            lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _length(text: str) -> int:
    return len(ANSI.sub("", text))


def _pad(text: str, width: int, right: bool) -> str:
    space = " " * (width - _length(text))
    return space + text if right else text + space


def _fit(widths: Sequence[int], flexible: Collection[int], width: int) -> list[int]:
    """The widths with those of the flexible columns reduced, in proportion, to what is left by the others."""
    free = width - sum(w for i, w in enumerate(widths) if i not in flexible) - 2 * (len(widths) - 1)
    wanted = sum(widths[i] for i in flexible)
    if wanted <= free:
        return list(widths)
    return [max(MIN_WIDTH, w * free // wanted) if i in flexible else w for i, w in enumerate(widths)]


def _wrap(cell: str, width: int | None) -> list[str]:
    lines = cell.split("\n")
    return lines if width is None else [part for line in lines for part in textwrap.wrap(line, width) or [""]]


def wrap(text: str, width: int | None, indent: str = "") -> str:
    """The text, wrapped at words; further lines are indented."""
    if width is None:
        return text
    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


@contextmanager
def stages_shown(first: str = "", stream: TextIO | None = None) -> Iterator[Callable[[str], None]]:
    """Show what is sent to `stage` in one line of a terminal, which the next text replaces; nothing elsewhere.

    Yields: a function that sends a text.
    """
    shown = StageLine(stream or sys.stderr)
    stage.setLevel(logging.INFO)
    stage.handlers = [shown]
    try:
        if first:
            stage.info(first)
        yield stage.info
    finally:
        shown.clear()
        stage.handlers = [logging.NullHandler()]
        stage.setLevel(logging.NOTSET)


class StageLine(logging.Handler):
    """Shows the last text in one line of a terminal."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream, self.is_terminal = stream, stream.isatty()
        self.is_shown = False

    def emit(self, record: logging.LogRecord) -> None:
        self.clear()
        if self.is_terminal and (text := printable(record.getMessage(), keep="")):
            self._write(text[: shutil.get_terminal_size().columns - 1])
            self.is_shown = True

    def clear(self) -> None:
        if self.is_shown:
            self._write("\r\x1b[K")
            self.is_shown = False

    def _write(self, text: str) -> None:
        with suppress(OSError):
            self.stream.write(text)
            self.stream.flush()


def show_report(result: ReportResult, stream: TextIO) -> str:
    """The results of a report as they are printed on this stream."""
    painter = paint if is_coloured(stream) else unpainted
    width = width_of(stream)
    shown = [v for v in result.found if v.contrast.is_primary] or list(result.found)
    answer = result.answer if result.found else ""  # that of a reproduction is among its findings
    show_claims = _claims_in_short if result.tally else _claims
    blocks = [wrap(_line(answer), width), show_claims(shown, width, painter)]
    if any(v.contrast.slack > 0 for v in shown):
        blocks.append(wrap(WIDENED_NOTE, width))
    findings = [] if result.tally else [_line(text) for text in result.findings]
    blocks.append("\n".join(wrap(text, width, "  ") for text in (_some(findings, MAX_FINDINGS) if width else findings)))
    others = len(result.found) - len(shown)
    rest = result.tally or (f"{_count(others, 'verdict')} in other views: on the page." if others else "")
    cautions = [_shorten(_line(text)) if width else _line(text) for text in result.cautions]
    limits = _some(cautions, MAX_CAUTIONS) if width else cautions
    blocks.append("\n".join([wrap(text, width) for text in (rest, *limits) if text]))
    blocks.append(f"Report: {result.index.absolute().as_uri()}")
    return "\n\n".join(block for block in blocks if block)


def _claims(found: Sequence[Verdict], width: int | None, painter: Callable[[str, str], str]) -> str:
    """A row for each verdict; those on several cases of a claim stand below it."""
    if not found:
        return ""
    explained = len(found) <= MAX_EXPLAINED
    rows: list[Sequence[str] | str] = [["verdict", "claim", "effect (interval)", "n"]]
    for of_claim in _by_claim(found):
        claim = of_claim[0].contrast.claim
        if len(of_claim) > 1:
            rows += ["", _line(claim.statement)]
        for verdict in of_claim:
            what = f"  {_line(verdict.case)}" if len(of_claim) > 1 else _line(f"{claim.statement} {verdict.case}.")
            rows.append([painter(verdict.status, verdict.status), what, _line(verdict.effect_text), str(verdict.n)])
            if verdict.reason and explained:
                rows.append(f" because {_line(verdict.reason)}")
    return align(rows, right=[3], flexible=[1, 2], width=width)


def _line(text: str) -> str:
    return printable(text, keep="")


def _claims_in_short(found: Sequence[Verdict], width: int | None, painter: Callable[[str, str], str]) -> str:
    """A row for each claim, with its effect if it has a single case."""
    from bnstudy.report.wording import count_statuses

    rows = []
    for of_claim in _by_claim(found):
        counts = count_statuses(of_claim)
        several = f"({len(of_claim)} cases)" if len(of_claim) > 1 else f"{of_claim[0].effect_text}."
        named = [status if len(of_claim) == 1 else f"{status} {n}" for status, n in counts]
        cell = "\n".join(painter(text, status) for text, (status, _) in zip(named, counts, strict=True))
        rows.append([cell, _line(f"{of_claim[0].contrast.claim.statement} {several}")])
    return align(rows, flexible=[1], width=width) if rows else ""


def _by_claim(found: Sequence[Verdict]) -> list[list[Verdict]]:
    claims: dict[str, list[Verdict]] = {}
    for verdict in found:
        claims.setdefault(verdict.contrast.claim.name, []).append(verdict)
    return list(claims.values())


def _some(texts: Sequence[str], most: int) -> list[str]:
    left = len(texts) - most
    return [*texts[:most], f"{left} more on the page."] if left > 0 else list(texts)


def _shorten(text: str) -> str:
    return text if len(text) <= SHORT else textwrap.shorten(text, SHORT, placeholder=" ...")


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
