"""Trains the parts one after another, and takes down how long each takes."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bnstudy.store.plans import Plans
from bnstudy.validation import ConfigError
from scripts.published.images import find_cifar10
from scripts.published.parts import ON_CIFAR10, Part
from scripts.published.record import PartRecord, Record, settings_of

ROOT = Path(__file__).parents[2]
SOME_FAILED = 1
"""The exit status of `bnstudy` when some runs failed and all others are finished."""


def train_parts(parts: Sequence[Part], data: Path, work: Path, overrides: Sequence[str] = ()) -> None:
    """Train the parts that are not finished with their present settings. What is interrupted goes on from its
    checkpoints the next time.

    Raises:
        SystemExit: a command was interrupted or failed.
        ConfigError: images are missing.
    """
    record = Record(work)
    if not (data / "MNIST" / "raw").is_dir():
        raise ConfigError(f"DATA={data} is not allowed: it has no folder MNIST/raw with the four files of MNIST.")
    for number, part in enumerate(parts, 1):
        known = record.of(part.name)
        begin = f"Part {number} of {len(parts)}, {part.name}"
        places = work / "data", work / "cifar10-jpeg"
        commands = part.commands(*places, work, overrides)
        settings = settings_of(commands)
        if known.done and known.settings == settings:
            say(f"{begin}: finished before, in {known.seconds:.0f} s.")
            continue
        link(data, places[0])
        if part.scale == "standard" and {*part.studies} & {*ON_CIFAR10}:
            link(find_cifar10(data), places[1])
        so_far = f"{known.seconds:.0f} s so far, " if known.seconds else ""
        say(f"{begin}: {len(part.studies)} studies, {so_far}{record.seconds:.0f} s in all parts until now.")
        known.note([shlex.join(["bnstudy", *words]) for words in commands])
        statuses = [train(words, known, record) for words in commands]
        known.done, known.settings = not any(statuses), settings
        record.save()
        end = "finished" if known.done else "finished but for runs that failed, which the next start tries again"
        say(f"{begin}: {end}, {known.seconds:.0f} s.")


def link(folder: Path, place: Path) -> None:
    """Make `place` lead to a folder: plans and reports name it, and the folders of this machine are nobody's
    business."""
    target = folder.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(target, target_is_directory=True)


def take_back_earlier_plans(store: Path) -> None:
    """Leave each study the plan of its last command. Runs of earlier settings stay, and are not published."""
    plans = Plans(store)
    for study in plans.studies():
        for line in plans.commands(study)[:-1]:
            plans.remove(line)
            say(f"Taken back, since {study} was planned anew: {line.command}")


def train(words: Sequence[str], known: PartRecord, record: Record) -> int:
    """Carry out one command and add its time to the record. SystemExit unless its runs are finished or failed."""
    say(f"  {shlex.join(['bnstudy', *words])}")
    begun = time.monotonic()
    status = wait_for([sys.executable, "-m", "bnstudy", *words])
    known.seconds += time.monotonic() - begun
    record.save()
    if status not in (0, SOME_FAILED):
        say(f"The command ended with status {status}. To go on, type the same again.")
        raise SystemExit(status if status > 0 else 128 - status)
    return status


def wait_for(words: Sequence[str]) -> int:
    """The exit status of a command. Ctrl-C reaches it as well: it saves checkpoints and ends, and is waited for."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen(words, cwd=Path.cwd(), env=with_package(), preexec_fn=take_interrupts)
        ends = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            return process.wait()
        finally:
            signal.signal(signal.SIGTERM, ends)
    finally:
        signal.signal(signal.SIGINT, before)


def take_interrupts() -> None:
    """In the new process: it would inherit that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def with_package() -> dict[str, str]:
    """The environment, in which `python -m bnstudy` is this one."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def say(text: str) -> None:
    print(text, flush=True)
