"""A command line, from its points to the table at its end."""

from __future__ import annotations

import logging
import math
import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bnstudy.store.runs import Store
from bnstudy.sweep.cost import NetworkCost, eager_seconds
from bnstudy.sweep.forkserver import cores
from bnstudy.sweep.machine import resolve_device
from bnstudy.sweep.objective import chance
from bnstudy.sweep.plan import Datasets, Plan, Stack, check_data, make_plan, make_stacks
from bnstudy.sweep.processes import in_process, processes
from bnstudy.sweep.progress import AboveTheBars, Progress, RunResult, duration, plural, table
from bnstudy.sweep.request import PlannedRun, Request
from bnstudy.sweep.worker import Failure
from bnstudy.validation import ConfigError, to_dict

WORTH_PROCESSES = 6.0
"""Seconds of training from which on starting processes, a second, pays."""

SAMPLE = 5
"""So many finished runs of a kind tell how long the others take."""

MOST_FAILURES = 10
"""So many failed runs are named at the end."""


class RunsFailed(Exception):  # noqa: N818
    """Some runs failed; the others are stored."""

    exit_status = 1


def run(request: Request) -> list[RunResult]:
    """Train what a command line asks for and is not there yet, and print what came of it.

    With `dry_run` it says what it would do; nothing is trained then, and the result is empty.

    Raises:
        ConfigError: something does not fit; nothing was trained then.
        RunsFailed: a run failed; the others were done.
        Interrupted, Left: a signal came; what was in training is saved.
    """
    return train(checked(request))


def run_all(requests: Sequence[Request]) -> list[RunResult]:
    """One after the other, whatever fails, once all of them are known to fit.

    Raises:
        As `run`; RunsFailed at the end.
    """
    results, failed = [], []
    for ready in [checked(request) for request in requests]:
        try:
            results += train(ready)
        except RunsFailed as error:
            failed.append(str(error))
    if failed:
        raise RunsFailed("\n".join(failed))
    return results


@dataclass(frozen=True)
class Ready:
    """A request that fits, and how it is to be done."""

    request: Request
    plan: Plan
    stacks: list[Stack]
    datasets: Datasets
    executor: str
    workers: int
    lines: list[str]


def checked(request: Request) -> Ready:
    """Raises ConfigError where something does not fit."""
    logging.getLogger("bnstudy").handlers = [AboveTheBars()]
    plan = make_plan(request)
    for key, folder in (("results_dir", plan.settings.results), ("cache_dir", plan.settings.cache)):
        check_writable(key, folder)
    kind, datasets = where_trained(request)
    kinds = check_data(plan, datasets)
    executor, workers = share_out(request, plan, kinds, kind)
    beside = 1 if executor == "slurm" else workers  # its jobs have memory of their own
    stacks = make_stacks(plan, kinds, kind, workers, beside)
    lines = described(plan, stacks, kind, executor, workers)
    return Ready(request, plan, stacks, datasets, executor, workers, lines)


def train(ready: Ready) -> list[RunResult]:
    """Raises RunsFailed, Interrupted and Left, as `run`."""
    request, plan, stacks = ready.request, ready.plan, ready.stacks
    if plan.settings.dry_run:
        print("\n".join([*ready.lines, *map(listed, stacks)]))
        return []
    remember_study(request, plan)
    progress = Progress(len(plan.todo), sum(s.steps * len(s.runs) for s in stacks), plan.settings.progress)
    if not request.part:
        progress.note("\n".join(ready.lines))
    try:
        failures = execute(ready.executor, ready.workers, request, stacks, ready.datasets, progress)
    finally:
        progress.close()
    results = all_results(plan, failures)
    conclude(request, results)
    return results


# ------------------------------------------------------------------------------------------------ how it is done

Kinds = dict[str, tuple[int, NetworkCost]]
JOBS = ("slurm", "local", "debug")


def where_trained(request: Request) -> tuple[str, Datasets]:
    """The kind of device that trains, and the datasets, on it if it is in this machine."""
    settings = request.settings
    if request.launcher.executor == "slurm":  # the machine that the command is typed on need not have one
        on_gpu = request.launcher.gpus > 0 and settings.device != "cpu"
        return ("cuda" if on_gpu else "cpu"), Datasets(settings.cache, torch.device("cpu"))
    device = resolve_device(settings)
    return device.type, Datasets(settings.cache, device)


def share_out(request: Request, plan: Plan, kinds: Kinds, device: str) -> tuple[str, int]:
    """The executor, and among how many workers stacks are shared out.

    Like the shape of stacks it follows from all runs that were asked for, so that a sweep that was killed goes on in
    the same way.
    """
    launcher = request.launcher
    if launcher.executor in JOBS:
        return launcher.executor, launcher.jobs if launcher.executor == "slurm" else launcher.workers or 1
    workers = launcher.workers or max(1, cores() // (plan.settings.threads or 1))
    if launcher.executor == "auto":
        many = len(plan.runs) > 1 and workers > 1 and device == "cpu"
        several = many and sum(seconds_of(run, kinds) for run in plan.runs) > WORTH_PROCESSES
        return ("processes", workers) if several else ("inprocess", 1)
    return launcher.executor, workers if launcher.executor == "processes" else 1


def seconds_of(run: PlannedRun, kinds: Kinds) -> float:
    """About what a run takes on one core, as one of a stack."""
    if run.spec.stack_key not in kinds:
        return 0.0
    steps, network = kinds[run.spec.stack_key]
    return steps * eager_seconds(run.spec, network)


def execute(
    executor: str, workers: int, request: Request, stacks: Sequence[Stack], datasets: Datasets, progress: Progress
) -> list[Failure]:
    settings = request.settings
    if not stacks:
        return []
    if executor == "inprocess":
        return in_process(settings, stacks, datasets, progress)
    if executor == "processes":
        threads = settings.threads or max(1, cores() // workers)
        return processes(replace(settings, threads=threads), stacks, workers, datasets, progress)
    return as_jobs(request, stacks, progress)


def as_jobs(request: Request, stacks: Sequence[Stack], progress: Progress) -> list[Failure]:
    """Submit the stacks as jobs and wait for their runs."""
    from bnstudy.sweep.jobs import watch
    from bnstudy.sweep.slurm import submit

    steps = {run_id: stack.steps for stack in stacks for run_id in stack.run_ids}
    jobs = submit(request.settings, request.launcher, stacks)
    waited: set[str] = set()

    def on_progress(run_ids: Sequence[str], states: str) -> None:
        for run_id in run_ids:
            progress.finished("jobs", steps[run_id])
        if states not in waited:
            waited.add(states)
            progress.note(f"{plural(len(jobs), 'job')}: {states}.")

    missing = watch(Store(request.settings.results), jobs, on_progress)
    return [Failure(run_id, error) for run_id, error in missing.items()]


# ---------------------------------------------------------------------------------------------- what is said of it


def described(plan: Plan, stacks: Sequence[Stack], device: str, executor: str, workers: int) -> list[str]:
    """The plan in a line or two."""
    finished = len(plan.runs) - len(plan.todo)
    counts = f"{plural(len(plan.runs), 'run')}: {finished} finished, {len(plan.todo)} to do"
    if not stacks:
        return [f"{counts}."]
    how = how_trained(stacks)
    where = {"inprocess": f"on {device}", "processes": f"on {device}, in {min(workers, len(stacks))} processes"}
    lines = [f"{counts}, {how}, {where.get(executor, f'by {executor}')}."]
    seconds = expected_seconds(plan, min(workers, len(stacks)))
    return lines if math.isnan(seconds) else [*lines, f"Expected to take about {duration(seconds)}."]


def how_trained(stacks: Sequence[Stack]) -> str:
    stacked = [len(stack.runs) for stack in stacks if stack.shape.engine == "stacked"]
    alone = sum(len(stack.runs) for stack in stacks if stack.shape.engine == "serial")
    parts = [f"{plural(len(stacked), 'stack')} of {sizes(stacked)}"] if stacked else []
    parts += [f"{alone} one by one" if stacked else "one by one"] if alone else []
    return " and ".join(parts)


def sizes(of_stacks: Sequence[int]) -> str:
    least, most = min(of_stacks), max(of_stacks)
    return str(most) if least == most else f"{least} to {most}"


def listed(stack: Stack) -> str:
    spec, shape = stack.runs[0].spec, stack.shape
    how = shape.engine + (", compiled" if shape.compiled else "")
    what = ", ".join(f"{key}={getattr(spec, key).label}" for key in ("model", "norm", "data", "optim"))
    named = f": {stack.runs[0].name}" + (" ..." if len(stack.runs) > 1 else "") if stack.runs[0].name else ""
    return f"  {plural(len(stack.runs), 'run')} of {stack.steps} steps, {how}, {what}{named}"


def expected_seconds(plan: Plan, workers: int) -> float:
    """From what finished runs of the same kinds took; NaN where a kind has none."""
    store, todo = plan.store, {run.spec.run_id for run in plan.todo}
    open_runs = Counter(run.spec.stack_key for run in plan.todo)
    total = 0.0
    for key, count in open_runs.items():
        there = [run for run in plan.runs if run.spec.stack_key == key and run.spec.run_id not in todo][:SAMPLE]
        taken = [store.summary(run.spec.run_id)["seconds"]["total"] for run in there]
        total += count * sum(taken) / len(taken) if taken else math.nan
    return total / workers


def all_results(plan: Plan, failures: Sequence[Failure]) -> list[RunResult]:
    """The results of all the plan's runs, those that were there before included, in the order of the command line."""
    errors = {failure.run_id: failure.error for failure in failures}
    return [
        stored_result(run, plan.store)
        if plan.store.is_finished(run.spec.run_id)
        else failed_result(run, plan.store, errors.get(run.spec.run_id, "it was not trained"))
        for run in plan.runs
    ]


def stored_result(run: PlannedRun, store: Store) -> RunResult:
    """What the store says of a finished run; a diverged one counts as guessing, a regression has no accuracy."""
    summary = store.summary(run.spec.run_id)
    diverged, classes = summary["status"] == "diverged", summary["dataset"]["classes"]
    accuracy = chance(summary) if diverged else summary["final"]["test_accuracy"]
    accuracy = accuracy if classes and accuracy is not None else math.nan
    folder = store.run(run.spec.run_id).folder
    seconds = summary["seconds"]["total"]
    return RunResult(run.spec.run_id, run.name, run.arm, summary["status"], accuracy, seconds, folder)


def failed_result(run: PlannedRun, store: Store, error: str) -> RunResult:
    folder = store.run(run.spec.run_id).folder
    return RunResult(run.spec.run_id, run.name, run.arm, "failed", math.nan, math.nan, folder, error)


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
    """Note what a study asked for, or several did, so that its report can say what is missing."""
    for member in request.members:
        remember_study(member, make_plan(member))
    if request.study is None:
        return
    about = {"name": request.study.name, "title": request.study.title, "claims": list(request.study.claims)}
    about |= {"looks": "repeated"} if request.settings.until else {}
    words = [word for word in sys.argv[1:] if not word.startswith("study.names=")]
    typed = [f"study={request.study.name}" if word.startswith("study=") else word for word in words]
    command = shlex.join(["bnstudy", *typed])
    for run in plan.runs:
        plan.store.begin(run.spec.run_id, to_dict(run.spec))
    plan.store.add_to_plan(about, request.scale, command, [run.spec.run_id for run in plan.runs])


def conclude(request: Request, results: Sequence[RunResult]) -> None:
    """Print the table, unless more is to follow, or claims are what is asked for.

    Raises:
        RunsFailed: a run failed; the others were done.
    """
    if results and request.settings.progress and not request.part and request.settings.until is None:
        print(table(results, "study" if request.members else "arm"))
    failed = [r for r in results if r.status == "failed"]
    if failed:
        names = "\n".join(f"  {r.name or r.run_id}: {r.error}{traceback_of(r)}" for r in failed[:MOST_FAILURES])
        more = f"\n  and {len(failed) - MOST_FAILURES} more" if len(failed) > MOST_FAILURES else ""
        counts = f"{len(failed)} of {plural(len(results), 'run')} failed; the others are stored:"
        raise RunsFailed(f"{counts}\n{names}{more}")


def traceback_of(result: RunResult) -> str:
    path = result.folder / "error.txt"
    return f" (traceback in {path})" if path.exists() else ""
