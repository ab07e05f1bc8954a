"""Metrics to Weights & Biases."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from bnstudy.loggers.base import BaseLogger, LoggedRun, each_row


@dataclass(frozen=True)
class WandB(BaseLogger):
    """A run of W&B a run, with the run_id as its id.

    mode: offline writes files only, which `wandb sync` sends; null for WANDB_MODE, or else online.
    dir: in which W&B makes its folder `wandb`; null for the results_dir.
    """

    package = "wandb"
    extra = "wandb"

    project: str = "bnstudy"
    entity: str | None = None
    mode: Literal["online", "offline"] | None = None
    dir: str | None = None

    def begin(self, run: LoggedRun) -> Any:
        import wandb

        # No output is captured, no code or machine metrics are sent: bnstudy records what belongs to a run.
        quiet = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        self.folder(run, self.dir, "wandb")
        place = Path(self.dir).expanduser() if self.dir else run.results
        while any((place / "wandb").glob(f"*-{time.strftime('%Y%m%d_%H%M%S')}-{run.run_id}")):
            time.sleep(0.1)  # W&B names the folder of a run by the second, and would write over it
        return wandb.init(
            project=self.project,
            entity=self.entity,
            id=run.run_id,
            name=run.name,
            config=dict(run.config),
            dir=str(place),
            mode=self.mode,
            resume=None if self.mode == "offline" else "allow",
            reinit="create_new",  # several at a time
            settings=quiet,
        )

    def log(self, sink: Any, rows: pa.Table) -> None:
        ordered = sorted(each_row(rows), key=lambda row: row.step)
        for step, at_step in groupby(ordered, key=lambda row: row.step):
            if step >= sink.step or not sink.resumed:  # those before are there
                sink.log({row.tag: row.value for row in at_step}, step=step)

    def finish(self, sink: Any, status: str, summary: Mapping[str, Any]) -> None:
        final = {f"final/{name}": value for name, value in summary.get("final", {}).items()}
        sink.summary.update({**final, "status": status})
        sink.finish(exit_code=int(status == "stopped"))
