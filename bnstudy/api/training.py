"""Runs and sweeps from Python: the same plan, store and errors as on the command line."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnstudy.validation import TO_SWEEP, ConfigError

if TYPE_CHECKING:
    import pandas as pd
    from hydra.types import HydraContext
    from omegaconf import DictConfig

    from bnstudy.sweep.progress import RunResult

Overrides = str | Iterable[str]

ONE_AT_A_TIME = threading.RLock()
"""Hydra, torch and matplotlib have settings of the whole process: calls in several threads wait for each other."""

OF_HYDRA = ("hydra/sweeper", "hydra/launcher", "hydra.mode")
"""Keys by which Hydra chooses what to do with a command line."""


def sweep(overrides: Overrides = (), /, *, config_dir: str | Path | None = None, **values: Any) -> pd.DataFrame:
    """Train the runs that `bnstudy -m` would train with these words, or a study, and return them all.

    `bnstudy.sweep(["norm=none,batch", "seed=range(0,10)"], lr=[0.1, 1], results_dir="results")`,
    `bnstudy.sweep("study=quickstart", scale="quick")`

    Args:
        overrides: words of the command line, or a single one.
        config_dir: a folder like conf/, with options of your own.
        values: further overrides, by key: a text as typed, a number, a truth value, or None; a list or a range for
            several values. A key with a dot: `**{"model.width": 64}`.

    Returns:
        The rows of `load_runs` for these runs, finished before or now, in the order of the command line. Empty with
        `dry_run=True`, which prints the plan.

    Raises:
        ConfigError: a value is not allowed; nothing was trained.
        RunsFailed: some run failed or is damaged; the others are stored.
    """
    words = [*as_words(overrides), *(f"{key}={value_text(value, several=True)}" for key, value in values.items())]
    return load_results(carry_out(words, config_dir))


def run(overrides: Overrides = (), /, *, config_dir: str | Path | None = None, **values: Any) -> pd.Series:
    """Train the run that `bnstudy` would train with these words, and return it.

    `bnstudy.run(norm="batch", lr=0.1, epochs=2)["final.test_accuracy"]`

    Args:
        overrides: words of the command line, or a single one.
        config_dir: a folder like conf/, with options of your own.
        values: further overrides, by key, as in `sweep`. Each key has one value: a list is the value of a key that
            takes a list.

    Returns:
        The row of `load_runs` for this run. Empty with `dry_run=True`.

    Raises:
        ConfigError: a value is not allowed, or there are several; nothing was trained.
        RunsFailed: the run failed or is damaged.
    """
    words = [*as_words(overrides), *(f"{key}={value_text(value, several=False)}" for key, value in values.items())]
    with explained():
        refuse_several(words)
    found = load_results(carry_out(words, config_dir))
    return found.iloc[0] if len(found) else found.loc[:, []].sum()


def as_words(overrides: Overrides) -> list[str]:
    """The words of a command line.

    Raises:
        ConfigError: something is not a text, or is a flag.
    """
    words = [overrides] if isinstance(overrides, str) else list(overrides)
    for word in words:
        if not isinstance(word, str) or not ("=" in word or word.startswith("~")) or word.startswith("-"):
            raise ConfigError(f"{word!r} is not allowed as an override: write key=value, such as 'lr=0.1'.")
    return words


def value_text(value: Any, several: bool) -> str:
    """A value as typed on the command line. several: a list holds the values of a sweep."""
    from bnstudy.config.compose import to_typed, to_typed_within

    plain = value.tolist() if hasattr(value, "tolist") else str(value) if isinstance(value, Path) else value
    plain = list(plain) if isinstance(plain, range | tuple) else plain
    if isinstance(plain, list):
        items = [value_text(item, several=False) for item in plain]
        return ",".join(items) if several else f"[{','.join(items)}]"
    if not isinstance(plain, str | int | float | Mapping | None):
        raise ConfigError(f"{value!r} is not allowed as a value: it must be a text, a number or a list of them.")
    return to_typed_within(plain) if isinstance(plain, Mapping) else to_typed(plain)


def refuse_several(words: Sequence[str]) -> None:
    """Raises ConfigError if the words describe more than one run."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from bnstudy.config.arguments import read_word
    from bnstudy.config.compose import ONE_OPTION

    parser = OverridesParser.create()
    for override in [read_word(word, parser) for word in words]:
        line = override.input_line
        several_options = override.key_or_group in ONE_OPTION and isinstance(override.value(), list)
        if override.is_sweep_override() or several_options:
            raise ConfigError(f"{line} lists several values: train them with bnstudy.sweep.")
        if override.key_or_group == "study" and override.value() is not None:
            raise ConfigError(f"{line} is a sweep: train it with bnstudy.sweep.")


def carry_out(words: Sequence[str], config_dir: str | Path | None) -> list[RunResult]:
    """Carry out a command line as the entry point does, by bnstudy's own sweeper."""
    with ONE_AT_A_TIME, callers_state(), explained(), ended_by_signals():
        from bnstudy.config.arguments import parse_training_arguments
        from bnstudy.sweep.progress import FROM_PYTHON
        from hydra_plugins.bnstudy_sweeper import BnstudySweeper

        refuse_keys(words)
        flags = [] if config_dir is None else [f"--config-dir={Path(config_dir).expanduser()}"]
        _, parsed = parse_training_arguments(["--multirun", *flags, *words])
        context, config = compose_command(parsed.overrides, parsed.config_dir)
        sweeper = BnstudySweeper(words=list(config.hydra.sweeper.words), typed=[*flags, *words])
        sweeper.setup(hydra_context=context, task_function=refuse_task, config=config)
        token = FROM_PYTHON.set(True)
        try:
            results: list[RunResult] = sweeper.sweep(list(config.hydra.overrides.task))
        finally:
            FROM_PYTHON.reset(token)
    return results


@contextmanager
def callers_state() -> Iterator[None]:
    """Leave the environment as it is, and the random numbers of a caller that has imported torch."""
    is_given = "GOMP_SPINCOUNT" in os.environ
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")  # as in cli.py
    torch = sys.modules.get("torch")
    try:
        with torch.random.fork_rng(devices=[]) if torch else nullcontext():
            yield
    finally:
        if not is_given:
            os.environ.pop("GOMP_SPINCOUNT", None)


def compose_command(overrides: Sequence[str], config_dir: str | None) -> tuple[HydraContext, DictConfig]:
    """What Hydra gives a sweeper. The caller's own use of Hydra is left as it is."""
    from hydra import version
    from hydra._internal.callbacks import Callbacks
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import HydraContext, RunMode

    from bnstudy.store.files import conf_dir

    path = create_config_search_path(str(conf_dir()))
    if config_dir is not None:
        folder = f"file://{os.path.abspath(config_dir)}"
        path.prepend(provider="command-line", path=folder, anchor=SearchPathQuery(provider="schema"))
    running, base = GlobalHydra.instance(), version.VersionBase.instance()
    before, running.hydra = (running.hydra, base.getbase()), None
    try:
        version.setbase("1.3")
        hydra = Hydra.create_main_hydra2("bnstudy", path)
        config = hydra.compose_config("config", list(overrides), RunMode.MULTIRUN)
        return HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks()), config
    finally:
        running.hydra = before[0]
        base.setbase(before[1])  # type: ignore[arg-type]  # None before the caller has set it


def refuse_task(_: DictConfig) -> None:
    """In place of the function that other sweepers call for each run."""
    raise AssertionError("bnstudy's sweeper calls no task function")


def refuse_keys(words: Sequence[str]) -> None:
    """Raises ConfigError for the keys by which Hydra chooses what to do with a command line."""
    for word in words:
        key = word.partition("=")[0].lstrip("+~")
        if key in OF_HYDRA:
            raise ConfigError(f"{word} is not allowed from Python: use the command line for it.")


@contextmanager
def explained() -> Iterator[None]:
    """Raise Hydra's errors about a user's mistake as ConfigError, with the sentence of the command line."""
    try:
        yield
    except ConfigError as error:
        if TO_SWEEP not in str(error):
            raise
        advice = "To sweep values, give bnstudy.sweep a list of them."
        raise ConfigError(str(error).replace(TO_SWEEP, advice)) from error
    except Exception as error:
        from bnstudy.config.messages import explain

        sentence = explain(error)
        if sentence is None:
            raise
        raise ConfigError(sentence) from error


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Pass a signal on to the caller once unfinished runs are saved: Ctrl-C raises KeyboardInterrupt."""
    from bnstudy.sweep.signals import Interrupted

    try:
        yield
    except Interrupted as stopped:
        signal.raise_signal(stopped.signum)
        raise


def load_results(results: Sequence[RunResult]) -> pd.DataFrame:
    """The frame of the runs, in this order."""
    from bnstudy.store.loading import load_runs
    from bnstudy.store.runs import Store

    ids = list(dict.fromkeys(result.run_id for result in results))
    frame = load_runs(Store(results[0].folder.parents[1] if results else Path("results")), ids)
    order = {run_id: place for place, run_id in enumerate(ids)}
    return frame.sort_values("run_id", key=lambda column: column.map(order), ignore_index=True)
