"""Hydra's sweeper plugin for bnstudy. Hydra imports it at every start: nothing heavy here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from bnstudy.sweep.request import Request


class BnstudySweeper(Sweeper):
    """Composes each choice of groups once, and checks all points of a sweep before it trains the first."""

    def __init__(
        self, params: dict[str, Any] | None = None, words: list[str] | None = None, typed: Sequence[str] | None = None
    ) -> None:
        """params: overrides below those of the command line. words: overrides of the command line. typed: all of its
        words, which a plan records; by default those of this process."""
        self.params, self.words = params, words or []
        self.typed = sys.argv[1:] if typed is None else typed

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:  # noqa: ARG002
        self.hydra_context = hydra_context
        self.config = config

    def sweep(self, arguments: list[str]) -> Any:
        """Train a sweep, or several studies. arguments: the overrides that are not among `words`."""
        arguments = [*arguments, *self.words]
        from bnstudy.sweep.forkserver import start_server

        start_server(self.config.hydra.launcher)
        from bnstudy.sweep.progress import show_warnings

        show_warnings()
        from bnstudy.config.studies import build_requests, find_studies
        from bnstudy.sweep.command import run

        loader = self.hydra_context.config_loader
        sources = self.config.hydra.runtime.config_sources
        folders = [Path(source.path) / "claim" for source in sources if source.schema == "file"]
        studies = find_studies(self.config)
        if studies is not None:
            return run(*build_requests(loader, self.config, arguments, studies, self.typed), folders=folders)
        request = self._build_request(arguments)
        if request.settings.until is None:
            return run(request, folders=folders)
        from bnstudy.sweep.adaptive import decide

        return decide(
            request, lambda seeds: self._build_request([*arguments, f"seed=range({seeds.start},{seeds.stop})"]), folders
        )

    def _build_request(self, overrides: list[str]) -> Request:
        from bnstudy.config.build import build_request
        from bnstudy.config.compose import compose_sweep

        points = compose_sweep(self.hydra_context.config_loader, self.config, overrides)
        return build_request(points, self.config.hydra.launcher, self.typed)


node = OmegaConf.create({"_target_": "hydra_plugins.bnstudy_sweeper.BnstudySweeper", "params": {}, "words": []})
OmegaConf.set_struct(node.params, False)  # any key of the configuration may be put there
ConfigStore.instance().store(group="hydra/sweeper", name="bnstudy", node=node, provider="bnstudy")
