"""The keys `hydra.launcher.*`, and Hydra's launcher for other sweepers. Imported at every start: nothing heavy here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from bnstudy.sweep.settings import LAUNCHER, Launcher


class BnstudyLauncher(BasicLauncher):
    """Trains the jobs of other sweepers, such as Optuna's, one after another; bnstudy's sweeper does not use it."""

    def __init__(self, **keys: Any) -> None:  # noqa: ARG002
        """The keys are checked where they are used, with those of the whole command."""
        super().__init__()


node = OmegaConf.create({"_target_": LAUNCHER, **asdict(Launcher())})
OmegaConf.set_struct(node.extra, False)  # any option of sbatch may be put there
ConfigStore.instance().store(group="hydra/launcher", name="bnstudy", node=node, provider="bnstudy")
