"""A command line, from its points to the table at its end."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bnstudy.config import Settings, build
from bnstudy.launch.executors import execute, prepare, resolve_device, stored_result
from bnstudy.launch.plan import Datasets, Plan, Study, check_data, make_plan
from bnstudy.launch.points import Point
from bnstudy.launch.progress import AboveTheBars, Progress, RunResult, plural, table
from bnstudy.spec import ConfigError, to_dict
from bnstudy.store import Store


class RunsFailed(Exception):  # noqa: N818
    """Some runs failed; the others are stored."""

    exit_status = 1


def run_points(points: Sequence[Point]) -> list[RunResult]:
    """Check all points, train what is not there yet, and print what came of it.

    Raises:
        ConfigError: a point is not allowed; nothing was trained then.
        RunsFailed: a run failed; the others were done.
        Interrupted: a signal came; the run in training is saved.
    """
    logging.getLogger("bnstudy").handlers = [AboveTheBars()]
    plan = make_plan(points)
    check_writable(Path(plan.settings.results_dir))
    device = resolve_device(plan.settings)
    datasets = Datasets(plan.settings.cache, device)
    check_data(plan, datasets, Store(Path(plan.settings.results_dir)))
    remember_study(points[0], plan)
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
    results = in_order(plan, trained, Store(Path(plan.settings.results_dir)))
    conclude(plan.settings, results)
    return results


def in_order(plan: Plan, trained: Sequence[RunResult], store: Store) -> list[RunResult]:
    """The results of all the plan's runs, those that were there before included, in the order of the command line."""
    new = {result.run_id: result for result in trained}
    return [new.get(run.spec.run_id) or stored_result(run, store) for run in plan.runs]


def check_writable(results_dir: Path) -> None:
    try:
        (results_dir / "runs").mkdir(parents=True, exist_ok=True)
        probe = results_dir / "runs" / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"results_dir={results_dir} is not allowed: it cannot be written ({reason}).") from None


def remember_study(point: Point, plan: Plan) -> None:
    """Note what a study asked for, so that its report can say what is missing."""
    node: Any = point.config.get("study")
    if node is None:
        return
    study: Study = build(node, "study")
    about = {"name": study.name, "title": study.title, "claims": list(study.claims)}
    command = shlex.join(["bnstudy", *sys.argv[1:]])
    store = Store(Path(plan.settings.results_dir))
    for run in plan.runs:
        store.begin(run.spec.run_id, to_dict(run.spec))
    store.add_to_plan(about, point.config["scale"]["name"], command, [run.spec.run_id for run in plan.runs])


def conclude(settings: Settings, results: Sequence[RunResult]) -> None:
    if results and settings.progress:
        print(table(results))
    failed = [r for r in results if r.status == "failed"]
    if failed:
        names = "\n".join(f"  {r.name or r.run_id}: {r.error} (traceback in {r.folder / 'error.txt'})" for r in failed)
        raise RunsFailed(f"{len(failed)} of {plural(len(results), 'run')} failed; the others are stored:\n{names}")
