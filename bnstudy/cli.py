"""The entry points `bnstudy` and `bnstudy-report`: let Hydra compose, then plan and train, or draw."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from bnstudy import __version__
from bnstudy.config.messages import STUMBLES, compare_quoted, explain, flags_first, runs_listed
from bnstudy.store.files import conf_dir, report_conf_dir
from bnstudy.validation import ConfigError

MISTAKES = (ConfigError, HydraException, OmegaConfBaseException, yaml.YAMLError)


def main() -> None:
    """Train what the command line asks for."""
    _run("bnstudy", conf_dir(), "config", _train)


def report() -> None:
    """Draw the report of what is in the store."""
    _run("bnstudy-report", report_conf_dir(), "report", _report)


def _train(config: DictConfig) -> float | None:
    """One run; with `-m` or a study, the sweeper in `hydra_plugins` is called instead.

    Returns the objective, for a sweeper that has each run launched for itself by another launcher.
    """
    from bnstudy.config.build import is_foreign, request
    from bnstudy.config.compose import Point, plain_config
    from bnstudy.store.runs import Store
    from bnstudy.sweep.command import run
    from bnstudy.sweep.objective import objective

    node = HydraConfig.get().launcher
    asked = request([Point((), plain_config(config))], {} if is_foreign(node) else node)
    if asked.study is not None:
        raise ConfigError(f"study={asked.study.name} is a sweep: leave hydra.mode and hydra/sweeper alone.")
    run(asked)
    if asked.settings.dry_run:
        return None
    return objective(Store(asked.settings.results).summary(asked.runs[0].spec.run_id), asked.settings.objective)


def _report(config: DictConfig) -> None:
    from bnstudy.report.compare import write_comparison
    from bnstudy.report.report import write_report

    if config.results_dir is None:
        raise ConfigError("results_dir=null is not allowed: it must be the name of a folder.")
    results = Path(str(config.results_dir)).expanduser()
    picked = [str(run_id) for run_id in config.runs or ()]
    own = [Path(str(config.claims)).expanduser()] if config.claims is not None else []
    if config.compare is None:
        result = write_report(results, config.study, config.scale, picked, own)
    else:
        result = write_comparison(results, str(config.compare), config.study, config.scale, picked)
    print("\n".join([*result.lines, f"Report: {result.index}"]))


def _run(program: str, config_dir: Path, config_name: str, task: Callable[[DictConfig], float | None]) -> None:
    """Have Hydra compose the config and call the task with it.

    What goes wrong becomes a sentence on stderr and an exit status: 2 for the user's mistake, that of the error
    where it has one. Hydra prints and swallows a job's exceptions, but not an exit.
    """
    # Threads that wait for a busy core must sleep, not spin: with another process beside it, spinning slows torch
    # down a hundredfold. It is read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    debugging = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # without it Hydra prints its own errors and exits with 1

    def leave(sentence: str, status: int) -> NoReturn:
        print(f"{program}: {sentence}", file=sys.stderr)
        sys.exit(status)

    def guarded(command: Callable[[], float | None]) -> float | None:
        try:
            return command()
        except KeyboardInterrupt:
            leave("Stopped.", 130)
        except BrokenPipeError:  # whoever reads the output, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)
        except Exception as error:
            stumbled = any(stumble in str(error) for stumble in STUMBLES)
            if (isinstance(error, MISTAKES) or stumbled) and not debugging:
                leave(explain(error, config_dir, config_name, sys.argv[1:]), 2)
            if hasattr(error, "exit_status"):
                leave(str(error), error.exit_status)
            raise

    def start() -> None:
        sys.argv[1:] = flags_first(sys.argv[1:])
        if "--version" in sys.argv:
            print(f"{program} {__version__}")
        elif config_name == "report" and {"-m", "--multirun"} & {*sys.argv}:
            raise ConfigError("-m is not allowed: one report is drawn at a time.")
        else:
            if config_name == "report":
                sys.argv[1:] = compare_quoted(runs_listed(sys.argv[1:]))
            hydra.main(version_base="1.3", config_path=str(config_dir), config_name=config_name)(guarded_task)()

    def guarded_task(config: DictConfig) -> float | None:
        return guarded(lambda: task(config))

    guarded(start)
