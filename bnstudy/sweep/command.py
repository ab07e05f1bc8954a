"""Carry out a command: plan its runs, train those that are missing, print the table of results."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from bnstudy.report.terminal import stage, width_of
from bnstudy.store.links import FOLDERS, refuse_links
from bnstudy.store.plans import Plans
from bnstudy.store.runs import Store
from bnstudy.sweep.cost import run_seconds, step_seconds
from bnstudy.sweep.describe import EXPECTED, describe_plan
from bnstudy.sweep.dry_run import describe_dry_run
from bnstudy.sweep.forkserver import cores
from bnstudy.sweep.limits import check_memory
from bnstudy.sweep.machine import resolve_device
from bnstudy.sweep.messages import Failure, plural
from bnstudy.sweep.plan import Datasets, Kinds, Plan, Stack, check_data, make_plan, make_stacks
from bnstudy.sweep.processes import train_in_processes
from bnstudy.sweep.progress import Progress, RunResult, show_warnings
from bnstudy.sweep.request import PlannedRun, Request, naming
from bnstudy.sweep.results import RunsFailed, all_results, report_results
from bnstudy.sweep.signals import StopFlag
from bnstudy.sweep.worker import work
from bnstudy.validation import ConfigError, printable, to_dict

MIN_PROCESSES_SECONDS = 2.0
"""Expected training time from which on worker processes are worth the third of a second that they take to start."""

RUN_SECONDS = 0.01
"""Approximate time to build a run of a stack, evaluate it a few times and store it."""


@dataclass(frozen=True)
class Sweep:
    """A request that was checked, with its plan and how to carry it out.

    lines: a summary for the user.
    seconds: estimates for a run of each kind, by `stack_key`.
    """

    request: Request
    plan: Plan
    stacks: list[Stack]
    datasets: Datasets
    executor: str
    workers: int
    lines: list[str]
    seconds: Mapping[str, float] = field(default_factory=dict)


def run(*requests: Request, folders: Sequence[Path] = ()) -> list[RunResult]:
    """Check all requests, then train their runs that are not stored yet and print the results, even if some runs fail.

    A study that compares networks at their best learning rates gets a second pass with finer ones. With `dry_run` it
    prints what it would train; nothing is trained, and the list is empty.

    folders: with the user's own claims.

    Raises:
        ConfigError: a value is not allowed; nothing was trained.
        RunsFailed: a run failed; the others are stored.
        Interrupted: a signal came; finished runs are stored, unfinished ones saved.
    """
    results, failed = [], []
    for sweep, refines in [(prepare(request), may_refine(request, folders)) for request in requests]:
        try:
            if sweep.plan.settings.dry_run:
                describe(sweep, refines, folders)
            else:
                results += train(sweep, refines, folders)
        except RunsFailed as error:
            failed.append(str(error))
    if failed:
        raise RunsFailed("\n".join(failed))
    return results


def prepare(request: Request) -> Sweep:
    """Check a request and plan it. Raises ConfigError if a value is not allowed."""
    show_warnings()
    stage.info(f"Planning {plural(len(request.runs), 'run')}: looking for finished ones ...")
    check_writable("results_dir", request.settings.results)
    plan = make_plan(request)
    refuse_store_links(request, plan)
    check_writable("cache_dir", request.settings.cache)
    device, datasets = choose_device(request)
    kinds = check_data(plan, datasets)
    if request.launcher.executor != "slurm":  # its jobs have another memory
        check_sizes(plan, kinds, device)
    executor, workers = choose_executor(request, plan, kinds, device)
    sharing = 1 if executor == "slurm" else workers  # each job has memory of its own
    stage.info(f"Planning {plural(len(plan.runs), 'run')}: forming stacks ...")
    stacks = make_stacks(plan, kinds, device, workers, sharing, datasets.inputs)
    stacks = limit_threads(stacks, plan.settings.threads, max_threads(request, executor, workers))
    lines = describe_plan(plan, stacks, device, executor, workers)
    seconds = {}
    for stack in stacks:
        spec, rows = stack.runs[0].spec, len(stack.runs) if stack.method.engine == "stacked" else 1
        seconds[spec.stack_key] = run_seconds(spec, kinds[spec.stack_key][1], stack.steps, rows)
    return Sweep(request, plan, stacks, datasets, executor, workers, lines, seconds)


def check_sizes(plan: Plan, kinds: Kinds, device: str) -> None:
    """Raises ConfigError if a run does not fit into the memory."""
    for run in {run.spec.stack_key: run for run in plan.todo}.values():
        with naming(run.name):
            check_memory(run.spec, *kinds[run.spec.stack_key], device)


def may_refine(request: Request, folders: Sequence[Path]) -> bool:
    """Whether a second pass may follow. Raises ConfigError if a claim of a study is unknown or wrong."""
    if not any(r.study and r.study.claims for r in (request, *request.members)):
        return False
    from bnstudy.sweep import refine  # imports pandas

    return refine.may_refine(request, folders) and request.settings.refine


def describe(sweep: Sweep, refines: bool, folders: Sequence[Path]) -> None:
    """Print the plan of a dry run."""
    about = sweep.request, sweep.plan, sweep.stacks, sweep.seconds, sweep.workers
    lines = [line for line in sweep.lines if not line.startswith(EXPECTED)]
    stage.info("")
    print(printable("\n".join([*lines, *describe_dry_run(*about, width_of(sys.stdout))])))
    if refines and sweep.plan.todo:
        print("A second pass may follow, with finer learning rates around the best of each family.")
    elif refines:
        _, second = prepare_second_pass(sweep.request, folders)
        if second is not None:
            describe(second, False, folders)


def train(sweep: Sweep, refines: bool, folders: Sequence[Path]) -> list[RunResult]:
    """Train both passes. Raises RunsFailed and Interrupted, as `run`."""
    request, command = sweep.request, secrets.token_hex(4)
    several_looks = request.settings.until is not None
    record_study(request, complete=not refines and not several_looks)
    failures = train_pass(sweep, command)
    if refines:
        request, second = prepare_second_pass(request, folders)
        if not several_looks or (second and second.plan.todo):  # a look that is stored may not be the last
            record_study(request)
        failures += train_pass(second, command) if second else []
    stage.info("Reading the results ...")
    results = all_results(make_plan(request), failures, command)
    stage.info("")
    report_results(request, results, folders)
    return results


def train_pass(sweep: Sweep, command: str) -> list[Failure]:
    plan, stacks = sweep.plan, sweep.stacks
    progress = Progress(len(plan.todo), sum(s.steps * len(s.runs) for s in stacks), plan.settings.progress)
    progress.note("\n".join(sweep.lines))
    try:
        return execute(sweep, progress, command) if stacks else []
    finally:
        progress.close()


def prepare_second_pass(request: Request, folders: Sequence[Path]) -> tuple[Request, Sweep | None]:
    """The request with the finer learning rates, and their sweep; None if there are none."""
    from bnstudy.sweep.refine import describe_second_pass, refine

    stage.info("Choosing finer learning rates ...")
    whole = refine(request, folders)
    first = {run.spec.run_id for run in request.runs}
    fine = tuple(run for run in whole.runs if run.spec.run_id not in first)
    if not fine:
        return whole, None
    sweep = prepare(replace(request, runs=fine, study=None, members=()))
    return whole, replace(sweep, lines=[describe_second_pass(sweep.plan.runs), *sweep.lines])


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
        may_pay = kinds and len(plan.runs) > 1 and workers > 1 and device == "cpu"
        pays = may_pay and sum(estimate_seconds(run, kinds) for run in plan.runs) > MIN_PROCESSES_SECONDS
        return ("processes", workers) if pays else ("inprocess", 1)
    return launcher.executor, workers if launcher.executor == "processes" else 1


def max_threads(request: Request, executor: str, workers: int) -> int:
    """The CPU threads that each worker may use."""
    if executor == "slurm":
        return request.launcher.cpus
    return max(1, cores() // workers) if executor == "processes" else torch.get_num_threads()


def limit_threads(stacks: Sequence[Stack], chosen: int | None, most: int) -> list[Stack]:
    """The stacks with the threads that the user has chosen, or else at most this many."""
    return [replace(stack, threads=chosen or (stack.threads and min(stack.threads, most))) for stack in stacks]


def estimate_seconds(run: PlannedRun, kinds: Kinds) -> float:
    """The approximate time of a run in a stack on one core."""
    steps, network = kinds[run.spec.stack_key]
    return RUN_SECONDS + steps * step_seconds(run.spec, network)


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


def refuse_store_links(request: Request, plan: Plan) -> None:
    """Raises ConfigError if a folder of the store that is written to is a symbolic link, or a name is not allowed."""
    root, plans = plan.settings.results, Plans(plan.settings.results)
    studies = [plans.folder(r.study.name, r.scale) for r in (request, *request.members) if r.study]
    runs = [plan.store.run(run.spec.run_id).folder for run in plan.runs]
    refuse_links(root, [*(root / name for name in FOLDERS), *studies, *runs])


def check_writable(key: str, folder: Path) -> None:
    """Raises ConfigError if no file can be created in the folder, which need not exist yet."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number, probe = tempfile.mkstemp(dir=folder, prefix=".write-")  # a name that nobody can plant a link at
        os.close(number)
        os.unlink(probe)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{key}={folder} is not allowed: it cannot be written ({reason}).") from None


def record_study(request: Request, complete: bool = True) -> None:
    """Store the runs of the requested studies, so that a report knows which are missing.

    complete: as in `Plans.add`.

    Raises:
        RunsFailed: the plan cannot be written.
    """
    for member in request.members:
        record_study(member, complete)
    if request.study is not None:
        runs = make_plan(request).runs
        store = Store(request.settings.results)
        for run in runs:
            config = store.run(run.spec.run_id).config
            with suppress(OSError):  # the worker names a run whose folder cannot be written
                # `begin` would read an existing file, in a large sweep for seconds.
                if not config.exists():
                    store.begin(run.spec.run_id, to_dict(run.spec))
        plan_study(request, [run.spec.run_id for run in runs], complete)


def plan_study(request: Request, run_ids: Sequence[str], complete: bool = True) -> None:
    """Store the plan of the request's study."""
    assert request.study is not None
    about = {"name": request.study.name, "title": request.study.title, "claims": list(request.study.claims)}
    about |= {"looks": "repeated"} if request.settings.until else {}
    about |= {"variant_of": request.variant_of} if request.variant_of else {}
    command = shlex.join(["bnstudy", *request.arguments])
    try:
        Plans(request.settings.results).add(about, request.scale, command, run_ids, complete)
    except OSError as error:
        where = f"{request.settings.results / 'studies'} ({error.strerror or error})"
        raise RunsFailed(
            f"The plan of study={request.study.name} cannot be written to {where}: once it can, the same command "
            "goes on."
        ) from None
