"""Hydra's way to bnstudy's own planning of sweeps. Imported at every start: nothing heavy here."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class BnstudySweeper(Sweeper):
    """Checks all points of a sweep before the first is trained, and composes each choice of groups once."""

    def __init__(self, params: dict[str, Any] | None = None) -> None:
        self.params = params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:  # noqa: ARG002
        self.hydra_context = hydra_context
        self.config = config

    def sweep(self, arguments: list[str]) -> Any:
        from bnstudy.sweep.forkserver import start_server

        start_server(self.config.hydra.launcher)
        from bnstudy.config.build import request
        from bnstudy.config.compose import sweep_points
        from bnstudy.config.studies import of_several, requests
        from bnstudy.sweep.command import run, run_all
        from bnstudy.sweep.request import Request

        studies = of_several(self.config)
        if studies is not None:
            all_of_them = requests(self.hydra_context.config_loader, self.config, arguments, studies)
            return run_all([replace(one, arguments=tuple(sys.argv[1:])) for one in all_of_them])

        def asked(arguments: list[str]) -> Request:
            points = sweep_points(self.hydra_context.config_loader, self.config, arguments)
            return replace(request(points, self.config.hydra.launcher), arguments=tuple(sys.argv[1:]))

        first = asked(arguments)
        if first.settings.until is None:
            return run(first)
        from bnstudy.sweep.adaptive import decide

        sources = self.config.hydra.runtime.config_sources
        folders = [Path(source.path) / "claim" for source in sources if source.schema == "file"]
        return decide(first, lambda seeds: asked([*arguments, f"seed=range({seeds.start},{seeds.stop})"]), folders)


node = OmegaConf.create({"_target_": "hydra_plugins.bnstudy_sweeper.BnstudySweeper", "params": {}})
OmegaConf.set_struct(node.params, False)  # any key of the configuration may be put there
ConfigStore.instance().store(group="hydra/sweeper", name="bnstudy", node=node, provider="bnstudy")
