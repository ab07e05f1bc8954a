"""The plans of studies, `<results_dir>/studies/<name>/<scale>/`: which runs belong to a study at a scale.

Each command line writes a file of its own, so that several processes can plan at the same time. A report leaves a mark
of the plan that it is drawn on, so that a later report can say that the plan was changed when results were known.

A store may come from somebody else. So each file is checked when it is read, a damaged one is left out and named by
`damaged`, and the names of studies and scales are those of their folders, whatever the files say.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from bnstudy.store.archive import refuse_packed
from bnstudy.store.files import write_json
from bnstudy.store.links import refuse_links
from bnstudy.store.plan_files import PlanFiles, find_plan_files
from bnstudy.validation import NAME, ConfigError, Spec

_RUN_ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class PlanFile(Spec):
    """The runs that a command line planned, and its study.

    variant_of: the study that the command line changed.
    """

    title: str
    command: str
    run_ids: tuple[str, ...]
    claims: tuple[str, ...] = ()
    looks: Literal["once", "repeated"] = "once"
    variant_of: str = ""

    def check(self) -> None:
        _check_ids(self, self.run_ids)
        # It is shown to be typed again, so it must not hold a second command.
        self.require(_is_one_command(self.command), "command", "one bnstudy command with quoted words")


@dataclass(frozen=True)
class Mark(Spec):
    """The runs of a plan that a report was drawn on, and when first."""

    first_drawn: str
    run_ids: tuple[str, ...]

    def check(self) -> None:
        _check_ids(self, self.run_ids)


@dataclass(frozen=True)
class CommandLine:
    """A command line that planned runs of a study; `planned_ns`: when it did last."""

    path: Path
    scale: str
    command: str
    run_ids: tuple[str, ...]
    planned_ns: int


File = TypeVar("File", bound=Spec)


@dataclass(frozen=True)
class Plans:
    """The plans and marks under one results_dir, which may be a packed store: then they can only be read."""

    results_dir: Path

    @cached_property
    def _stored(self) -> PlanFiles:
        return find_plan_files(self.results_dir)

    def add(
        self, study: Mapping[str, Any], scale: str, command: str, run_ids: Iterable[str], complete: bool = True
    ) -> None:
        """Plan the runs of a command line, besides those of other command lines.

        Args:
            study: its name, title and claims, looks if they are repeated, and variant_of if it is a variant.
            complete: False while the command may still add runs. If the same command line planned all of these before,
                the others that it planned then stay.

        Raises:
            ConfigError: a name is not allowed, or a folder is a symbolic link.
            OSError: the store cannot be written.
        """
        refuse_packed(self.results_dir)
        path, planned = self.folder(study["name"], scale) / f"{_digest(command)}.json", {*run_ids}
        refuse_links(self.results_dir, [path.parent])
        if not complete:
            for before in self._intact([path] if path.exists() else [], PlanFile):
                planned = {*before.run_ids} if planned <= {*before.run_ids} else planned
        write_json(path, {**study, "scale": scale, "command": command, "run_ids": sorted(planned)})

    def folder(self, study: str, scale: str) -> Path:
        """Where the plan of a study is. Raises ConfigError if a name is not allowed."""
        for key, name in (("study.name", study), ("scale.name", scale)):
            if not NAME.fullmatch(name):
                raise ConfigError(f"{key}={name} is not allowed: it must be of letters, digits, dots, - and _.")
        return self.results_dir / "studies" / study / scale

    def commands(self, study: str) -> list[CommandLine]:
        """The command lines that planned a study, the oldest first."""
        files = [path for folder in self._scales(study) for path in self._files(folder)]
        return [
            CommandLine(path, path.parent.name, file.command, file.run_ids, self._time(path))
            for path in sorted(files, key=lambda path: (self._time(path), path))
            for file in self._intact([path], PlanFile)
        ]

    def remove(self, line: CommandLine) -> None:
        """Take back what a command line planned. Its runs stay, and so do the marks of reports.

        Raises:
            ConfigError: a folder is a symbolic link.
            OSError: the store cannot be written.
        """
        refuse_packed(self.results_dir)
        refuse_links(self.results_dir, [line.path.parent])
        line.path.unlink(missing_ok=True)
        for folder in (line.path.parent, line.path.parent.parent):
            with suppress(OSError):  # it holds other files
                folder.rmdir()

    def files(self, study: str, scale: str) -> list[Path]:
        """The intact files of a study's plan at a scale, and of the marks of reports on it."""
        folder = self.folder(study, scale)
        plans = [path for path in self._files(folder) if list(self._intact([path], PlanFile))]
        return plans + [path for path in self._files(folder / "reported") if list(self._intact([path], Mark))]

    def studies(self) -> list[str]:
        """The names of the studies with a plan, sorted."""
        return sorted({folder.parent.name for folder in self._scales() if self._files(folder)})

    def find(self, study: str) -> str:
        """The study itself if it has a plan, or else its only variant.

        Raises:
            ConfigError: it has only variants, and several.
        """
        if self.load(study):
            return study
        variants = self.variants_of(study)
        if len(variants) > 1:
            raise ConfigError(
                f"study={study} was run with changes only, and each change is a study of its own: choose one of "
                f"{', '.join(f'study={name}' for name in variants)}."
            )
        return variants[0] if variants else study

    def variants_of(self, study: str) -> list[str]:
        """The names of the variants of a study, sorted."""
        return [name for name in self.studies() if any(p.get("variant_of") == study for p in self._merged(name))]

    def relatives(self, variant: str) -> list[str]:
        """The study that a variant changes, and its other variants; none for a study that is no variant."""
        origins = {str(plan["variant_of"]) for plan in self._merged(variant) if plan.get("variant_of")}
        return sorted({*origins, *(name for origin in origins for name in self.variants_of(origin))} - {variant})

    def load(self, study: str) -> list[dict[str, Any]]:
        """The study's plans, one a scale, the latest first.

        Each has the study's `name`, `title` and `claims`, the `scale`, all `commands` and all their `run_ids`, `looks`
        if they are repeated, `variant_of` if it is a variant, and `planned_ns`, the time of the latest command.
        """
        plans = self._merged(study)
        for plan in plans:
            if self._shares_runs_of_several_looks(plan):
                plan["looks"] = "repeated"
        return plans

    def _merged(self, study: str) -> list[dict[str, Any]]:
        plans = [plan for folder in self._scales(study) if (plan := self._merge(folder))]
        return sorted(plans, key=lambda plan: -plan["planned_ns"])

    def _shares_runs_of_several_looks(self, variant: Mapping[str, Any]) -> bool:
        """Whether the variant has seeds that were added to another plan of its study because of results."""
        others = [plan for name in self.relatives(variant["name"]) for plan in self._merged(name)]
        return any({*plan["run_ids"]} & {*variant["run_ids"]} for plan in others if "looks" in plan)

    def damaged(self, study: str = "*") -> list[str]:
        """A sentence for each file of a plan and each mark that cannot be used, of one study or all, and for each
        folder of plans whose name is not allowed, as in earlier versions."""
        sentences = [
            f"{folder} was left out: names must be of letters, digits, dots, - and _. To use its plans, rename it."
            for folder in self._folders()
            if not _is_named(folder) and study in ("*", folder.parent.name) and self._files(folder)
        ]
        for folder in self._scales(study):
            for kind, where in ((PlanFile, folder), (Mark, folder / "reported")):
                for path in self._files(where):
                    try:
                        self._read(path, kind)
                    except ConfigError as error:
                        sentences.append(str(error))
        return sentences

    def mark_reported(self, study: str, scale: str, run_ids: Iterable[str]) -> None:
        """Remember that a report was drawn on a plan of these runs. A second report on the same plan changes nothing.

        Raises:
            ConfigError: a folder is a symbolic link.
            OSError: the store cannot be written.
        """
        refuse_packed(self.results_dir)
        ids = sorted(run_ids)
        path = self.folder(study, scale) / "reported" / f"{_digest(' '.join(ids))}.json"
        refuse_links(self.results_dir, [path.parent])
        if not path.exists():
            write_json(path, {"first_drawn": datetime.now(UTC).isoformat(), "run_ids": ids})

    def reported(self, study: str, scale: str) -> list[Mark]:
        """The marks of the plans of the study on which a report was drawn, the earliest first."""
        marks = self._intact(self._files(self.folder(study, scale) / "reported"), Mark)
        return sorted(marks, key=lambda mark: (mark.first_drawn, mark.run_ids))

    def planned_since(self, study: str, scale: str) -> str:
        """When the study got its present plan, at the latest, as `Mark.first_drawn` is written.

        A command that runs again writes its plan again; an earlier report on the same plan says that it is older.
        """
        plans = [plan for plan in self._merged(study) if plan["scale"] == scale]
        marks = self.reported(study, scale)
        times = [datetime.fromtimestamp(plan["planned_ns"] / 1e9, UTC).isoformat() for plan in plans]
        times += [mark.first_drawn for mark in marks for plan in plans if [*mark.run_ids] == plan["run_ids"]]
        return min(times, default="")

    def _scales(self, study: str = "*") -> list[Path]:
        """The folders of a study's plans, or of all, sorted."""
        return [path for path in self._folders() if _is_named(path) and study in ("*", path.parent.name)]

    def _folders(self) -> list[Path]:
        found = self._stored.folders()
        return [path for path in found if not path.name.startswith(".") and not path.parent.name.startswith(".")]

    def _files(self, folder: Path) -> list[Path]:
        """The JSON files in a folder, the oldest first."""
        return self._stored.files(folder)

    def _time(self, path: Path) -> int:
        return self._stored.time(path)

    def _merge(self, folder: Path) -> dict[str, Any] | None:
        """The plan in the files of several command lines. `looks` that were repeated once stay repeated."""
        paths = self._files(folder)
        files = list(self._intact(paths, PlanFile))
        if not files:
            return None
        more = {"looks": "repeated"} if any(file.looks == "repeated" for file in files) else {}
        more |= {"variant_of": files[-1].variant_of} if files[-1].variant_of else {}
        return {
            "name": folder.parent.name,
            "title": files[-1].title,
            "claims": files[-1].claims,
            "scale": folder.name,
            "commands": [file.command for file in files],
            "run_ids": sorted({run_id for file in files for run_id in file.run_ids}),
            "planned_ns": self._time(paths[-1]),
            **more,
        }

    def _intact(self, paths: Iterable[Path], kind: type[File]) -> Iterator[File]:
        for path in paths:
            with suppress(ConfigError):
                yield self._read(path, kind)

    def _read(self, path: Path, kind: type[File]) -> File:
        """Raises ConfigError if the file cannot be used, with its name and the reason."""
        try:
            node = json.loads(self._stored.text(path))
            if not isinstance(node, Mapping):
                raise ConfigError("it is no mapping")
            return kind(**{field.name: node[field.name] for field in fields(kind) if field.name in node})
        except Exception as error:  # a file that is no JSON fails in many ways, and a deep one in recursion
            reason = str(error)[:200].rstrip(".") if isinstance(error, ConfigError) else type(error).__name__
            remedy = "the same command writes it again" if kind is PlanFile else "later reports do without"
            raise ConfigError(f"{path} is damaged and was left out ({reason}): delete it; {remedy}.") from error


def _is_named(folder: Path) -> bool:
    """Whether the names of a study and of a scale are allowed."""
    return all(NAME.fullmatch(name) for name in (folder.name, folder.parent.name))


def _check_ids(file: Spec, run_ids: Sequence[str]) -> None:
    file.require(all(map(_RUN_ID.fullmatch, run_ids)), "run_ids", "a list of ids, of 12 hexadecimal digits each")


def _is_one_command(text: str) -> bool:
    """Whether a shell runs bnstudy with the text's words, and nothing else."""
    try:
        words = shlex.split(text)
    except ValueError:
        return False
    return words[:1] == ["bnstudy"] and shlex.join(words) == text


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
