"""PROVENANCE.md: how the published results were made."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from scripts.published.record import PUBLISHED, Record

CIFAR10 = (
    "The images of CIFAR-10 are JPEG re-encodings of quality 75, not the original bytes: the data are called CIFAR-10 "
    "(JPEG), and their results are not those of CIFAR-10."
)
DIGITS = (
    "The runs of the part `digits` are not published, only their verdicts: `digits/claims.json`, and rows of "
    "`verdicts.csv`. To train them again: the command of the part."
)


def pack_words(studies: Sequence[str], trained: Path) -> list[str]:
    """The words of the command that packs the studies of a store, after `bnstudy`."""
    return ["pack", str(PUBLISHED), "--thin", f"study={','.join(studies)}", f"results_dir={trained}"]


def provenance(record: Record, pack: Sequence[str]) -> str:
    """pack: the words of the command that packed the store, after `bnstudy`."""
    rows = ["| part | studies' commands | seconds | started |", "|:--|:--|--:|--:|"]
    remarks = list[str]()
    known: dict[str, list[str]] = {"Commit": [], "Machine": [], "Versions": []}
    for name, part in record.parts.items():
        commands = "<br>".join(f"`{command}`" for command in part.commands)
        remarks += [f"- {name}: {part.remark}"] if part.remark else []
        rows.append(f"| {name} | {commands} | {part.seconds:.0f} | {part.started} |")
        for values, own in zip(known.values(), (part.commits, part.machines, part.versions), strict=True):
            values += [value for value in own if value not in values]
    facts = [f"- {title}: {'; '.join(values)}" for title, values in known.items()]
    return "\n".join(
        [
            "# Provenance", "",
            "`make results DATA=FOLDER` trained, packed and reported these results.", "",
            *facts,
            f"- Packed by: `{shlex.join(['bnstudy', *pack])}`", "",
            "`results/trained/data` is a link to FOLDER, which has `MNIST/raw`. A part that was started more than once "
            "was interrupted, or planned anew: only runs that were missing were trained then. Its seconds are those of "
            "all starts, also of runs of earlier plans, which are not published.", "",
            *rows,
            f"| all | | {record.seconds:.0f} | |", "",
            *([*remarks, ""] if remarks else []),
            CIFAR10, "", DIGITS, "",
            "`make results-check` redraws everything here from the packed store and `parts.json`, and compares every "
            "byte. `python scripts/results.py restore` begins with this state: `make results` then trains the runs "
            "that are missing, and those of the part `digits`.",
        ]
    ) + "\n"  # fmt: skip
