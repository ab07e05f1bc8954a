"""Batches of jobs that another of Hydra's sweepers comes with, perhaps one that learns from each what to try next."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobRuntime, JobStatus
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from bnstudy.config.compose import SweepPoint
from bnstudy.store.runs import Store
from bnstudy.sweep.command import RunsFailed, run
from bnstudy.sweep.objective import check_direction, objective
from bnstudy.sweep.progress import AboveTheBars
from bnstudy.sweep.request import Request
from bnstudy.sweep.settings import Settings
from bnstudy.validation import ConfigError, show


def prepare(master: DictConfig, settings: Settings) -> None:
    """Before the sweeper begins: have its files lie with the results, and its messages shown.

    Raises:
        ConfigError: something does not go together with a sweeper other than bnstudy's.
    """
    sweeper = master.hydra.runtime.choices["hydra/sweeper"]
    if OmegaConf.select(master, "study") is not None:
        raise ConfigError(
            f"study={master.study.name} is not allowed with hydra/sweeper={sweeper}: a study says itself what is "
            "swept; leave out one of the two."
        )
    if settings.dry_run:
        raise ConfigError(
            f"dry_run=true is not allowed with hydra/sweeper={sweeper}: what it asks for may depend on what comes out."
        )
    check_direction(master.hydra.sweeper, settings.objective)
    folder = Path(master.hydra.sweep.dir).expanduser()
    with read_write(master.hydra):
        master.hydra.sweep.dir = str(folder)
    sweepers = logging.getLogger("hydra_plugins")
    sweepers.handlers = [AboveTheBars()]
    sweepers.setLevel(logging.INFO if settings.progress else logging.WARNING)


def train(request: Request, points: Sequence[SweepPoint], master: DictConfig, first: int) -> list[JobReturn]:
    """Train a batch, and say of each job, numbered from `first`, what the sweeper wants to know.

    A run that failed is a job that failed: what becomes of it is the sweeper's to decide.
    """
    Path(master.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
    failure: RunsFailed | None = None
    try:
        run(request)
    except RunsFailed as failed:
        failure = failed
    returns = []
    for number, (planned, point) in enumerate(zip(request.runs, points, strict=True), first):
        job = job_of(point, master, number)
        told(job, planned.spec.run_id, request.settings, failure)
        if request.settings.progress:
            print(f"#{number} {planned.name or planned.spec.run_id}: {outcome(job, request.settings)}")
        returns.append(job)
    return returns


def told(job: JobReturn, run_id: str, settings: Settings, failure: RunsFailed | None) -> None:
    """Put what the store says of the run into the job."""
    store = Store(settings.results)
    if store.is_finished(run_id):
        job.status = JobStatus.COMPLETED
        job.return_value = objective(store.summary(run_id), settings.objective)
    else:
        job.status = JobStatus.FAILED
        job.return_value = failure


def outcome(job: JobReturn, settings: Settings) -> str:
    return "failed" if job.status is JobStatus.FAILED else f"{settings.objective}={show(job.return_value)}"


def job_of(point: SweepPoint, master: DictConfig, number: int) -> JobReturn:
    """The job as Hydra's own launchers describe it."""
    return JobReturn(
        overrides=list(point.overrides),
        cfg=OmegaConf.create(point.config),
        hydra_cfg=hydra_config(point, master, number),
        working_dir=os.getcwd(),
        task_name=JobRuntime.instance().get("name"),
    )


def hydra_config(point: SweepPoint, master: DictConfig, number: int) -> DictConfig:
    """The sweep's `hydra`, with what is the job's own put in. To compose it anew would take 70 ms a job."""
    config = copy.deepcopy(OmegaConf.masked_copy(master, "hydra"))
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.overrides.task = list(point.overrides)
        config.hydra.job.id, config.hydra.job.num = str(number), number
        chosen = dict(override.split("=", 1) for override in point.overrides if "=" in override)
        config.hydra.runtime.choices.update({key: chosen[key] for key in config.hydra.runtime.choices if key in chosen})
    return config
