"""`bnstudy export tensorboard`: the metrics of stored runs, sent by the loggers that also send them in training."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bnstudy.commands.arguments import Arguments, find_run, read_arguments, say
from bnstudy.commands.selection import Selection, select
from bnstudy.commands.settings import command_words, read_yaml
from bnstudy.config.build import build_spec
from bnstudy.loggers.base import BaseLogger, LoggedRun
from bnstudy.store.files import conf_dir
from bnstudy.store.integrity import DamagedRun
from bnstudy.store.runs import Store
from bnstudy.sweep.messages import plural
from bnstudy.sweep.stackable import one_line
from bnstudy.validation import ConfigError, nearest

HELP = """The metrics of finished runs, for another tool.

bnstudy export tensorboard                               all runs, to results/tensorboard
bnstudy export csv study=quickstart to=my_folder         those of a study, a CSV file each
bnstudy export csv norm=batch 'seed=range(0,5)'          those with these settings, as of bnstudy list
bnstudy export csv runs=0a1b2c3d4e5f,112233445566        these runs

What can be named is an option of the group logger, which sends metrics while runs train: bnstudy logger=tensorboard.
"""
OWN_KEYS = ("runs", "to")


class ExportFailed(Exception):  # noqa: N818
    """The logger had an error; the runs before it are exported."""

    exit_status = 1


def run(arguments: Sequence[str]) -> int:
    given = read_arguments(
        "export", HELP, arguments, takes_logger=True, keys=None, takes_settings=True, needs_store=False
    )
    logger = read_logger(given)
    words = {key: value for key, value in given.values.items() if key not in OWN_KEYS}
    ids = [find_run(given.store, word.strip()) for word in given.values.get("runs", "").split(",") if word.strip()]
    found = select(given.store, given.options, words, among=ids or None)
    finished = [run_id for run_id in found.run_ids if given.store.is_finished(run_id)]
    if not finished:
        where = given.store.results_dir
        raise ConfigError(f"There is no finished run like this in {where}: results_dir=FOLDER names another store.")
    damages = export(given.store, logger, {run_id: run_name(found, run_id) for run_id in finished})
    unfinished = len(found.run_ids) - len(finished)
    folder = Path(getattr(logger, "dir", None) or given.store.results_dir / logger.module).expanduser()
    done = plural(len(finished) - len(damages), "run") + (f" to {folder}" if folder.is_dir() else "")
    say(f"Exported {done}." + f" {unfinished} not finished." * bool(unfinished))
    for sentence in damages.values():
        say(sentence)
    return 1 if damages else 0


def read_logger(given: Arguments) -> BaseLogger:
    """The logger that the arguments name, with its default settings and its folder.

    Raises:
        ConfigError: there is no such logger, or it has no folder, or its package is missing.
    """
    named, folders = given.named, [folder / "logger" for folder in (conf_dir(), *given.options.folders)]
    files = {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml")) if path.stem != "none"}
    if len(named) != 1 or named[0] not in files:
        wrong = f"{' '.join(named)} is not allowed" if named else "Name where to export to"
        hint = nearest(named[0], files) if named else ""
        raise ConfigError(f"bnstudy export: {wrong}: it must be one of {', '.join(files)}{hint or '.'}")
    logger = build_spec(node := read_yaml(files[named[0]]), "logger")
    if not isinstance(logger, BaseLogger):
        raise ConfigError(f"{files[named[0]]} is not allowed: its class must be derived from BaseLogger.")
    if "to" not in given.values:
        return logger
    if "dir" not in {field.name for field in fields(logger)}:
        raise ConfigError(f"to={given.values['to']} is not allowed with {named[0]}: it has no folder.")
    made: BaseLogger = build_spec({**node, "dir": given.values["to"]}, "logger")
    return made


def export(store: Store, logger: BaseLogger, names: Mapping[str, str]) -> dict[str, str]:
    """Send the metrics of finished runs. A sentence for each damaged run, by run_id.

    Raises:
        ExportFailed: the logger had an error.
    """
    damages: dict[str, str] = {}
    for run_id, name in tqdm(names.items(), "export", disable=not sys.stderr.isatty(), dynamic_ncols=True):
        try:
            config, summary = store.outcome(run_id)
            metrics = store.table(run_id, "metrics")
        except DamagedRun as damage:
            damages[run_id] = str(damage)
            continue
        try:
            sink: Any = logger.begin(LoggedRun(run_id, name, config, Path(store.results_dir)))
            logger.log(sink, metrics)
            logger.finish(sink, summary["status"], summary)
        except ConfigError:
            raise
        except Exception as error:  # of any library, or of the user's code
            raise ExportFailed(f"logger={logger.extra or logger.label} failed: {one_line(error)}.") from error
    return damages


def run_name(found: Selection, run_id: str) -> str:
    """The words of the command line that differ from the defaults."""
    return " ".join(command_words(found.options.words(found.specs[run_id]))) if run_id in found.specs else run_id
