"""Hydra's other sweepers' way to bnstudy's own launching of runs. Imported at every start: nothing heavy here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from bnstudy.sweep.settings import LAUNCHER
from bnstudy.sweep.settings import Launcher as Keys


class BnstudyLauncher(Launcher):
    """Trains each batch of jobs that a sweeper comes with as one: what can be stacked is stacked.

    bnstudy's own sweeper does without: it has all its points at once.
    """

    def __init__(self, **keys: Any) -> None:
        """The keys are checked where they are used, with those of the whole command."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:  # noqa: ARG002
        from bnstudy.sweep.forkserver import get_ready

        get_ready(config.hydra.launcher)
        from bnstudy.config.build import build_launcher, build_settings
        from bnstudy.config.compose import Composer
        from bnstudy.sweep.hydra_jobs import prepare

        build_launcher(config.hydra.launcher)
        prepare(config, build_settings(config))
        self.config = config
        self.composer = Composer(hydra_context.config_loader, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from bnstudy.config.build import build_request
        from bnstudy.config.compose import SweepPoint
        from bnstudy.sweep.hydra_jobs import train

        points = [SweepPoint(tuple(own), self.composer.config(tuple(own))) for own in job_overrides]
        asked = replace(build_request(points, self.config.hydra.launcher), part=True)
        return train(asked, points, self.config, initial_job_idx)


node = OmegaConf.create({"_target_": LAUNCHER, **asdict(Keys())})
OmegaConf.set_struct(node.extra, False)  # any option of sbatch may be put there
ConfigStore.instance().store(group="hydra/launcher", name="bnstudy", node=node, provider="bnstudy")
