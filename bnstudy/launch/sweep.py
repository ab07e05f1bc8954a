"""A command line, from its points to the table at its end."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from bnstudy.launch.executors import execute, prepare, resolve_device, stored_result
from bnstudy.launch.plan import Datasets, Plan, check_data, make_plan
from bnstudy.launch.progress import AboveTheBars, Progress, RunResult, plural, table
from bnstudy.launch.request import Request, Settings
from bnstudy.spec import ConfigError, to_dict


class RunsFailed(Exception):  # noqa: N818
    """Some runs failed; the others are stored."""

    exit_status = 1


def run(request: Request) -> list[RunResult]:
    """Train what a command line asks for and is not there yet, and print what came of it.

    Raises:
        ConfigError: something does not fit; nothing was trained then.
        RunsFailed: a run failed; the others were done.
        Interrupted: a signal came; the run in training is saved.
    """
    logging.getLogger("bnstudy").handlers = [AboveTheBars()]
    plan = make_plan(request)
    for key, folder in (("results_dir", plan.settings.results), ("cache_dir", plan.settings.cache)):
        check_writable(key, folder)
    device = resolve_device(plan.settings)
    datasets = Datasets(plan.settings.cache, device)
    check_data(plan, datasets)
    remember_study(request, plan)
    prepare(plan.settings, device)
    progress = Progress(len(plan.todo), plan.settings.progress)
    finished = len(plan.runs) - len(plan.todo)
    progress.note(
        f"{plural(len(plan.runs), 'run')}: {finished} already there, {len(plan.todo)} to do on {device.type}."
    )
    try:
        trained = execute(plan, datasets, progress)
    finally:
        progress.close()
    results = in_order(plan, trained)
    conclude(plan.settings, results)
    return results


def in_order(plan: Plan, trained: Sequence[RunResult]) -> list[RunResult]:
    """The results of all the plan's runs, those that were there before included, in the order of the command line."""
    new = {result.run_id: result for result in trained}
    return [new.get(run.spec.run_id) or stored_result(run, plan.store) for run in plan.runs]


def check_writable(key: str, folder: Path) -> None:
    """Raises ConfigError where files cannot be made in the folder, which need not exist yet."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{key}={folder} is not allowed: it cannot be written ({reason}).") from None


def remember_study(request: Request, plan: Plan) -> None:
    """Note what a study asked for, so that its report can say what is missing."""
    if request.study is None:
        return
    about = {"name": request.study.name, "title": request.study.title, "claims": list(request.study.claims)}
    command = shlex.join(["bnstudy", *sys.argv[1:]])
    for run in plan.runs:
        plan.store.begin(run.spec.run_id, to_dict(run.spec))
    plan.store.add_to_plan(about, request.scale, command, [run.spec.run_id for run in plan.runs])


def conclude(settings: Settings, results: Sequence[RunResult]) -> None:
    if results and settings.progress:
        print(table(results))
    failed = [r for r in results if r.status == "failed"]
    if failed:
        names = "\n".join(f"  {r.name or r.run_id}: {r.error} (traceback in {r.folder / 'error.txt'})" for r in failed)
        raise RunsFailed(f"{len(failed)} of {plural(len(results), 'run')} failed; the others are stored:\n{names}")
