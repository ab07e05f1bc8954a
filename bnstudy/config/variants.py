"""A study that the command line changes is a variant: a study of its own, so that the reports on both stay apart."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace

from bnstudy.run import RunSpec
from bnstudy.store.renames import with_present_key
from bnstudy.sweep.settings import StudySpec

SAME_RUNS = {"data.root"}
"""Keys of a run's groups that change no run."""

OF_STUDY = {"study.claims", "study.sweep", "study.scales", "study.grid"}
"""Keys of a study that change what it asks."""

PLAIN = re.compile(r"[\w.=(),]*")
"""A word that differs from all others in the letters, digits and dots that its name keeps."""

LONGEST_NAME = 80


def as_variant(study: StudySpec, arguments: Sequence[str]) -> StudySpec:
    """The study as the arguments change it: with a name and a title that say how. Without changes, the study itself.

    A name of the user's own, `study.name=deep_relu`, stays.

    Args:
        arguments: of the command line, as typed.
    """
    words = changes(arguments)
    if not words or any(word.startswith("study.name=") for word in arguments):
        return study
    title = f"{study.title} Changed: {', '.join(words)}."
    return replace(study, name=variant_name(study.name, words), title=title)


def changes(arguments: Sequence[str]) -> list[str]:
    """The words that change which runs a study has, or what it asks of them, sorted."""
    return sorted({word for word in map(with_present_key, arguments) if _is_change(word)})


def _is_change(word: str) -> bool:
    key = word.partition("=")[0].lstrip("+~")
    top = re.split(r"[./@]", key)[0]
    own = any(key == name or key.startswith(f"{name}.") for name in OF_STUDY)
    return own or (top in RunSpec.__dataclass_fields__ and key not in SAME_RUNS)


def variant_name(study: str, words: Sequence[str]) -> str:
    """`"dead_relu-lr-0.1-model.depth-8"`; with a digest where letters are lost that may tell two variants apart."""
    name = "-".join([study, *(re.sub(r"[^\w.]+", "-", word).strip("-.") for word in words)])
    if len(name) <= LONGEST_NAME and all(map(PLAIN.fullmatch, words)):
        return name
    digest = hashlib.sha256(" ".join(words).encode()).hexdigest()[:6]
    return f"{name[: LONGEST_NAME - 7].rstrip('-.')}-{digest}"
