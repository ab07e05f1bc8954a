"""Carry out a command: plan its runs, train those that are missing, print the table of results."""

from __future__ import annotations

import logging
import math
import os
import secrets
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bnstudy.store.runs import Store
from bnstudy.sweep.cost import eager_seconds
from bnstudy.sweep.describe import describe_plan, describe_stack
from bnstudy.sweep.forkserver import cores
from bnstudy.sweep.machine import resolve_device
from bnstudy.sweep.messages import Failure, plural, recorded_error
from bnstudy.sweep.plan import Datasets, Kinds, Plan, Stack, check_data, make_plan, make_stacks
from bnstudy.sweep.processes import train_in_processes
from bnstudy.sweep.progress import AboveTheBars, Progress, RunResult, table
from bnstudy.sweep.request import PlannedRun, Request
from bnstudy.sweep.signals import StopFlag
from bnstudy.sweep.summary import chance_accuracy
from bnstudy.sweep.worker import work
from bnstudy.validation import ConfigError, to_dict

MIN_PROCESSES_SECONDS = 6.0
"""Expected training time from which on worker processes, which take a second to start, are worth it."""

MAX_FAILURES = 10
"""So many failed runs are named at the end."""


class RunsFailed(Exception):  # noqa: N818
    """Some runs failed; the others are stored."""

    exit_status = 1


@dataclass(frozen=True)
class Sweep:
    """A request that was checked, with its plan and how to carry it out.

    lines: a summary for the user.
    """

    request: Request
    plan: Plan
    stacks: list[Stack]
    datasets: Datasets
    executor: str
    workers: int
    lines: list[str]


def run(*requests: Request) -> list[RunResult]:
    """Check all requests, then train their runs that are not stored yet and print the results, even if some runs fail.

    With `dry_run` it prints what it would train; nothing is trained, and the list is empty.

    Raises:
        ConfigError: a value is not allowed; nothing was trained.
        RunsFailed: a run failed; the others are stored.
        Interrupted: a signal came; finished runs are stored, unfinished ones saved.
    """
    results, failed = [], []
    for sweep in [prepare(request) for request in requests]:
        try:
            results += train(sweep)
        except RunsFailed as error:
            failed.append(str(error))
    if failed:
        raise RunsFailed("\n".join(failed))
    return results


def prepare(request: Request) -> Sweep:
    """Check a request and plan it. Raises ConfigError if a value is not allowed."""
    logging.getLogger("bnstudy").handlers = [AboveTheBars()]
    plan = make_plan(request)
    for key, folder in (("results_dir", plan.settings.results), ("cache_dir", plan.settings.cache)):
        check_writable(key, folder)
    device, datasets = choose_device(request)
    kinds = check_data(plan, datasets)
    executor, workers = choose_executor(request, plan, kinds, device)
    sharing = 1 if executor == "slurm" else workers  # each job has memory of its own
    stacks = make_stacks(plan, kinds, device, workers, sharing)
    lines = describe_plan(plan, stacks, device, executor, workers)
    return Sweep(request, plan, stacks, datasets, executor, workers, lines)


def train(sweep: Sweep) -> list[RunResult]:
    """Raises RunsFailed and Interrupted, as `run`."""
    request, plan, stacks = sweep.request, sweep.plan, sweep.stacks
    if plan.settings.dry_run:
        print("\n".join([*sweep.lines, *map(describe_stack, stacks)]))
        return []
    record_study(request, plan, request.arguments)
    progress = Progress(len(plan.todo), sum(s.steps * len(s.runs) for s in stacks), plan.settings.progress)
    progress.note("\n".join(sweep.lines))
    command = secrets.token_hex(4)
    try:
        failures = execute(sweep, progress, command) if stacks else []
    finally:
        progress.close()
    results = all_results(plan, failures, command)
    report_results(request, results)
    return results


def choose_device(request: Request) -> tuple[str, Datasets]:
    """The type of device that trains, and the datasets, on that device if it is in this machine."""
    settings = request.settings
    if request.launcher.executor == "slurm":  # the login node may have no such device
        on_gpu = request.launcher.gpus > 0 and settings.device != "cpu"
        return ("cuda" if on_gpu else "cpu"), Datasets(settings.cache, torch.device("cpu"))
    device = resolve_device(settings)
    return device.type, Datasets(settings.cache, device)


def choose_executor(request: Request, plan: Plan, kinds: Kinds, device: str) -> tuple[str, int]:
    """The executor and the number of workers.

    Like the sizes of stacks they follow from all requested runs, finished or not, so that a sweep that was killed goes
    on in the same way.
    """
    launcher = request.launcher
    if launcher.executor == "slurm":
        return "slurm", launcher.jobs
    workers = launcher.workers or max(1, cores() // (plan.settings.threads or 1))
    if launcher.executor == "auto":
        may_pay = len(plan.runs) > 1 and workers > 1 and device == "cpu"
        pays = may_pay and sum(estimate_seconds(run, kinds) for run in plan.runs) > MIN_PROCESSES_SECONDS
        return ("processes", workers) if pays else ("inprocess", 1)
    return launcher.executor, workers if launcher.executor == "processes" else 1


def estimate_seconds(run: PlannedRun, kinds: Kinds) -> float:
    """The approximate time of a run in a stack on one core."""
    if run.spec.stack_key not in kinds:
        return 0.0
    steps, network = kinds[run.spec.stack_key]
    return steps * eager_seconds(run.spec, network)


def execute(sweep: Sweep, progress: Progress, command: str) -> list[Failure]:
    settings, stacks = sweep.request.settings, sweep.stacks
    if sweep.executor == "inprocess":
        return work(settings, stacks, progress.show, StopFlag(), command, datasets=sweep.datasets)
    if sweep.executor == "processes":
        settings = replace(settings, threads=settings.threads or max(1, cores() // sweep.workers))
        return train_in_processes(settings, stacks, sweep.workers, progress, command)
    return train_in_jobs(sweep.request, stacks, progress)


def train_in_jobs(request: Request, stacks: Sequence[Stack], progress: Progress) -> list[Failure]:
    """Submit the stacks to Slurm and wait for their runs."""
    from bnstudy.sweep.jobs import wait_for
    from bnstudy.sweep.slurm import submit

    steps = {run_id: stack.steps for stack in stacks for run_id in stack.run_ids}
    submissions = submit(request.settings, request.launcher, stacks)
    count = sum(len(submission.job_ids) for submission in submissions)
    announced: set[str] = set()

    def on_progress(run_ids: Sequence[str], states: str) -> None:
        for run_id in run_ids:
            progress.run_done("", run_id, steps[run_id])
        if states not in announced:
            announced.add(states)
            progress.note(f"{plural(count, 'job')}: {states}.")

    missing = wait_for(Store(request.settings.results), submissions, on_progress)
    return [Failure(run_id, error) for run_id, error in missing.items()]


def all_results(plan: Plan, failures: Sequence[Failure], command: str) -> list[RunResult]:
    """The results of all runs of the plan, in the order of the command line."""
    errors = {failure.run_id: failure.error for failure in failures}

    def result(run: PlannedRun) -> RunResult:
        run_id = run.spec.run_id
        if plan.store.is_finished(run_id):
            return stored_result(run, plan.store)
        paths = plan.store.run(run_id)
        error = errors.get(run_id) or recorded_error(paths.error, command) or "it was not trained"
        return RunResult(run_id, run.name, run.arm, "failed", math.nan, math.nan, paths.folder, error)

    return [result(run) for run in plan.runs]


def stored_result(run: PlannedRun, store: Store) -> RunResult:
    """The result of a finished run; a diverged one has the accuracy of guessing, a regression none."""
    run_id, summary = run.spec.run_id, store.summary(run.spec.run_id)
    status, seconds = summary["status"], summary["seconds"]["total"]
    accuracy = chance_accuracy(summary) if status == "diverged" else summary["final"]["test_accuracy"]
    if accuracy is None or not summary["dataset"]["classes"]:
        accuracy = math.nan
    return RunResult(run_id, run.name, run.arm, status, accuracy, seconds, store.run(run_id).folder)


def check_writable(key: str, folder: Path) -> None:
    """Raises ConfigError if no file can be created in the folder, which need not exist yet."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{key}={folder} is not allowed: it cannot be written ({reason}).") from None


def record_study(request: Request, plan: Plan, arguments: Sequence[str]) -> None:
    """Store the runs of the requested studies, so that a report knows which are missing."""
    for member in request.members:
        record_study(member, make_plan(member), arguments)
    if request.study is None:
        return
    about = {"name": request.study.name, "title": request.study.title, "claims": list(request.study.claims)}
    about |= {"looks": "repeated"} if request.settings.until else {}
    words = [word for word in arguments if not word.startswith("study.names=")]
    words = [f"study={request.study.name}" if word.startswith("study=") else word for word in words]
    command = shlex.join(["bnstudy", *words])
    for run in plan.runs:
        plan.store.begin(run.spec.run_id, to_dict(run.spec))
    plan.store.add_to_plan(about, request.scale, command, [run.spec.run_id for run in plan.runs])


def report_results(request: Request, results: Sequence[RunResult]) -> None:
    """Print the table, unless seeds are added until claims are decided.

    Raises:
        RunsFailed: a run failed; the others are stored.
    """
    if results and request.settings.progress and request.settings.until is None:
        print(table(results, "study" if request.members else "arm"))
    failed = [r for r in results if r.status == "failed"]
    if failed:
        others = "; the others are stored:" if len(failed) < len(results) else ":"
        lines = [f"{len(failed)} of {plural(len(results), 'run')} failed{others}"]
        for r in failed[:MAX_FAILURES]:
            path = r.folder / "error.txt"
            lines.append(f"  {r.name or r.run_id}: {r.error}" + (f" (traceback in {path})" if path.exists() else ""))
        lines += [f"  and {len(failed) - MAX_FAILURES} more"] if len(failed) > MAX_FAILURES else []
        raise RunsFailed("\n".join(lines))
