"""`bnstudy status`: what is being trained in a store now, as seen from any terminal, and what is still to do."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from bnstudy.commands.arguments import read_arguments
from bnstudy.commands.settings import Options, command_words, in_order
from bnstudy.commands.workers import worker_text
from bnstudy.report.terminal import align
from bnstudy.store.activity import Worker, find_workers, saved_step
from bnstudy.store.integrity import DamagedRun
from bnstudy.store.plans import Plans
from bnstudy.store.runs import Store
from bnstudy.sweep.messages import last_line, plural
from bnstudy.sweep.progress import duration
from bnstudy.validation import printable

HELP = """What is being trained in the store now, and what is still to do.

bnstudy status           looks every two seconds until Ctrl-C, in a pipe once
bnstudy status --once    looks once

A worker is a process or a Slurm job. It is stale if its process has ended, or
if it is on another machine and has not written its heartbeat for a minute. The
next bnstudy command that needs its runs goes on with them.
"""
FLAGS = {"once": "look once"}

LOOK_SECONDS = 2.0
MOST_FAILURES = 5
"""So many failed runs are named."""
CLEAR = "\x1b[H\x1b[2J"


@dataclass
class Look:
    """What is known of a store between two looks: finished runs stay finished, and plans change rarely."""

    store: Store
    options: Options
    finished: set[str] = field(default_factory=set)
    plans: list[dict[str, Any]] = field(default_factory=list)
    _plans_of: object = None
    _words: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        self._read_plans()
        begun = set(self.store.run_ids())
        planned = {run_id for plan in self.plans for run_id in plan["run_ids"]}
        self.finished = {r for r in self.finished if r in begun}
        self.finished |= {r for r in begun - self.finished if self.store.is_finished(r)}
        todo = sorted((begun | planned) - self.finished)
        workers = find_workers(self.store, [run_id for run_id in todo if run_id in begun])
        running = {run_id for worker in workers if not worker.is_stale for run_id in worker.run_ids}
        failed = {r for r in todo if r in begun and r not in running and self.store.run(r).error.exists()}
        lines = [f"{self.store.results_dir}, {time.strftime('%H:%M:%S')}", *self._workers(workers)]
        groups = {(plan["name"], plan["scale"]): {*plan["run_ids"]} for plan in self.plans}
        groups |= {("(none)", ""): begun - planned} if begun - planned else {}
        lines += ["", *self._counts(groups, running, failed), *self._failures(sorted(failed))]
        return lines

    def _read_plans(self) -> None:
        plans = Plans(self.store.results_dir)
        folders = sorted((self.store.results_dir / "studies").glob("*/*/"))
        state = []
        for folder in folders:
            with suppress(FileNotFoundError):  # its plan has just been taken back
                state.append((folder, folder.stat().st_mtime_ns))
        if state != self._plans_of:
            self.plans = [plan for study in plans.studies() for plan in plans.load(study)]
            self._plans_of = state

    def _workers(self, workers: Sequence[Worker]) -> list[str]:
        if not workers:
            return ["", "Nothing is being trained."]
        lines = []
        for worker in workers:
            lines += ["", worker_text(worker)]
            if worker.run_ids:
                lines += [f"  {text}" for text in (*self._describe(worker.run_ids), self._step(worker.run_ids))]
            else:
                lines.append("  has no run: it is starting, or waits for those of others")
        return lines

    def _describe(self, ids: Sequence[str]) -> list[str]:
        """The studies of runs, and their settings: those that they share, and how many values the others have."""
        for run_id in (run_id for run_id in ids if run_id not in self._words):
            with suppress(DamagedRun):
                self._words[run_id] = self.options.words(self.store.config(run_id))
        found = [self._words[run_id] for run_id in ids if run_id in self._words]
        if not found:
            return [f"{plural(len(ids), 'run')} without a readable config.yaml"]
        keys = in_order(dict.fromkeys(key for words in found for key in words))
        values = {key: {words.get(key) for words in found} for key in keys}
        shared = command_words({key: found[0][key] for key in keys if len(values[key]) == 1})
        several = [f"{plural(len(values[key]), 'value')} of {key}" for key in keys if len(values[key]) > 1]
        studies = sorted({plan["name"] for plan in self.plans if {*plan["run_ids"]} & {*ids}})
        of = f" of study {', '.join(studies)}" if studies else ""
        together = ", ".join([" ".join(shared) or "default settings", *several])
        return [f"{plural(len(ids), 'run')}{of}", together]

    def _step(self, ids: Sequence[str]) -> str:
        """The step of the newest checkpoint of these runs."""
        found = []
        for run_id in ids:
            path = self.store.run(run_id).checkpoint
            with suppress(OSError):
                found.append((path.stat().st_mtime, run_id))
        if not found:
            return "no checkpoint yet"
        saved, run_id = max(found)
        step, steps = saved_step(self.store.run(run_id).checkpoint), None
        with suppress(DamagedRun):
            steps = self.store.config(run_id).get("steps")
        where = "" if step is None else f" at step {step}" + (f" of {steps}" if steps else "")
        return f"last checkpoint{where}, {duration(max(0.0, time.time() - saved))} ago"

    def _counts(self, groups: Mapping[tuple[str, str], set[str]], running: set[str], failed: set[str]) -> list[str]:
        """A row for each study and scale, first those that are not finished."""
        if not groups:
            return ["There are no runs yet."]
        rows = [["study", "scale", "runs", "finished", "running", "failed", "to do"]]
        for name, ids in sorted(groups.items(), key=lambda group: group[1] <= self.finished):
            counts = [len(ids), len(ids & self.finished), len(ids & running), len(ids & failed)]
            rows.append([*name, *map(str, counts), str(counts[0] - sum(counts[1:]))])
        return align(rows, right=range(2, 7)).splitlines()

    def _failures(self, ids: Sequence[str]) -> list[str]:
        lines = [f"{run_id} failed: {last_line(self.store.run(run_id).error)}" for run_id in ids[:MOST_FAILURES]]
        lines += [f"and {len(ids) - MOST_FAILURES} more failed"] if len(ids) > MOST_FAILURES else []
        return ["", *lines, "bnstudy show RUN says more."] if lines else []


def run(arguments: Sequence[str], sleep: Callable[[float], None] = time.sleep) -> int:
    given = read_arguments("status", HELP, arguments, FLAGS)
    look = Look(given.store, given.options)
    if given.flags.once or not sys.stdout.isatty():
        print("\n".join(map(printable, look.lines())))
        return 0
    with suppress(KeyboardInterrupt):
        while True:
            sys.stdout.write(CLEAR + "\n".join(cut(map(printable, look.lines()))) + "\n")
            sys.stdout.flush()
            sleep(LOOK_SECONDS)
    return 0


def cut(lines: Iterable[str]) -> list[str]:
    """The lines as far as they fit the terminal: longer ones would scroll."""
    columns, rows = shutil.get_terminal_size()
    shown = [line if len(line) < columns else f"{line[: columns - 4]}..." for line in lines]
    room = max(5, rows - 2)
    return (
        shown if len(shown) <= room else [*shown[: room - 1], f"{len(shown) - room + 1} more lines: --once shows all"]
    )
