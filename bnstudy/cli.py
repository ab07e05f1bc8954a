"""The entry points `bnstudy` and `bnstudy-report`: let Hydra compose, then plan and train, or draw."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from bnstudy.config import conf_dir, explain, report_conf_dir
from bnstudy.spec import ConfigError


def main() -> None:
    """Train what the command line asks for."""
    _run(conf_dir(), "config", _train)


def report() -> None:
    """Draw the report of what is in the store."""
    _run(report_conf_dir(), "report", _report)


def _train(config: DictConfig) -> None:
    """One run; with `-m` or a study, the sweeper in `hydra_plugins` is called instead."""
    from bnstudy.launch.points import Point, plain_config
    from bnstudy.launch.sweep import run_points

    run_points([Point((), plain_config(config))])


def _report(config: DictConfig) -> None:
    from bnstudy.analysis.report import write_report

    result = write_report(Path(config.results_dir), config.study, config.scale)
    caution = [result.caution] if result.caution else []
    print("\n".join([*result.findings, *caution, f"Report: {result.index}"]))


def _run(config_dir: Path, config_name: str, task: Callable[[DictConfig], None]) -> None:
    """Have Hydra compose the config and call the task with it.

    What goes wrong becomes a sentence on stderr and an exit status: 2 for the user's mistake, that of the error
    where it has one. Hydra prints and swallows a job's exceptions, but not an exit.
    """
    # Threads that wait for a busy core must sleep, not spin: with another process beside it, spinning slows torch
    # down a hundredfold. It is read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    debugging = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # without it Hydra prints its own errors and exits with 1

    def guarded(command: Callable[[], None]) -> None:
        try:
            command()
        except KeyboardInterrupt:
            sys.exit(_say("Stopped.", 130))
        except (ConfigError, HydraException, OmegaConfBaseException) as error:
            if debugging:
                raise
            sys.exit(_say(explain(error, config_dir, config_name), 2))
        except Exception as error:
            if not hasattr(error, "exit_status"):
                raise
            sys.exit(_say(str(error), error.exit_status))

    hydrated = hydra.main(version_base="1.3", config_path=str(config_dir), config_name=config_name)
    guarded(hydrated(lambda config: guarded(lambda: task(config))))


def _say(sentence: str, status: int) -> int:
    print(f"bnstudy: {sentence}", file=sys.stderr)
    return status
