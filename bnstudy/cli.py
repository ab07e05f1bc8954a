"""The entry points `bnstudy` and `bnstudy-report`: parse the arguments, build what they describe, call it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

from bnstudy import commands
from bnstudy.config import console
from bnstudy.config.help import first_steps, is_study, training_help
from bnstudy.report.terminal import show_report, stage, stages_shown, width_of
from bnstudy.validation import closest, printable

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Train the runs that the command line describes, or carry out a subcommand."""
    console.open_streams()
    if not sys.argv[1:]:
        with exit_statuses("bnstudy"):
            print(first_steps())
        return
    first = sys.argv[1]
    if first in COMPLETION:
        with exit_statuses("bnstudy"):
            answer_shell("bnstudy")
        return
    if first in commands.SUBCOMMANDS:
        with console.interruptible("bnstudy"), exit_statuses("bnstudy"):
            status = commands.run(first, sys.argv[2:])
        sys.exit(status)
    if first.isidentifier() and not is_study(first) and (near := closest(first, commands.SUBCOMMANDS)):
        leave("bnstudy", f"{first} is not a subcommand; did you mean {near}? Settings are written key=value.", 2)
    # Threads that wait for others spin for up to a millisecond, longer than most waits within a step, and then sleep.
    # By default they spin ten times as long: with another process beside it, that slows torch down a hundredfold. It is
    # read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    debugging = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints its errors and exits with 1
    try:
        with console.interruptible("bnstudy"), exit_statuses("bnstudy", debugging), planning(sys.argv[1:]):
            call_hydra(debugging)
    finally:
        if not debugging:
            del os.environ["HYDRA_FULL_ERROR"]


@contextmanager
def planning(words: Sequence[str]) -> Iterator[None]:
    """Say at once that the runs are planned, which takes seconds: on a terminal how far it is, else for a sweep."""
    flags = [word for word in words if word.startswith("-")]
    sweeps = any(word.startswith("study=") or word in ("-m", "--multirun") for word in words)
    if "progress=false" in words or not all(flag.startswith(TRAINING_FLAGS) for flag in flags):
        yield
        return
    with stages_shown("Planning ..."):
        if sweeps and not sys.stderr.isatty():
            with suppress(OSError):  # nobody reads it
                print("Planning ...", file=sys.stderr, flush=True)
        yield


COMPLETION = ("--shell-completion", "-sc")
TRAINING_FLAGS = ("-m", "--multirun", "-cd", "--config-dir")
"""With others nothing is trained."""


def call_hydra(debugging: bool) -> None:
    from hydra import version
    from hydra._internal.utils import _run_hydra  # hydra.main parses sys.argv itself, and not flags among the words
    from hydra.core.global_hydra import GlobalHydra

    from bnstudy.config.arguments import parse_training_arguments
    from bnstudy.store.files import conf_dir

    version.setbase("1.3")
    parser, flags = parse_training_arguments(sys.argv[1:])
    if flags.help:
        print(training_help(flags.overrides, flags.config_dir, commands.SUBCOMMANDS, width_of(sys.stdout)))
        return
    task = exit_statuses("bnstudy", debugging)(train)  # Hydra prints and swallows a job's errors, not its exit
    running = GlobalHydra.instance()
    callers, running.hydra = running.hydra, None  # a notebook may have initialized Hydra
    try:
        _run_hydra(flags, parser, task, str(conf_dir()), "config")
    finally:
        running.hydra = callers


def answer_shell(program: str) -> None:
    """Print what the shell asks for to complete a command line."""
    from bnstudy.config import completion

    line = os.environ.get("COMP_LINE", "")
    if text := completion.answer(program, " ".join(sys.argv[2:3]), line, commands.SUBCOMMANDS, commands.flags):
        print(text)


def report() -> None:
    """Write the report that the command line describes."""
    console.open_streams()
    with console.interruptible("bnstudy-report"), exit_statuses("bnstudy-report"):
        if sys.argv[1:] and sys.argv[1] in COMPLETION:
            answer_shell("bnstudy-report")
            return
        from bnstudy.config.arguments import parse_report_arguments

        options = parse_report_arguments(sys.argv[1:])
        with stages_shown("Reading the store ...") as show:
            from bnstudy.api.reporting import write  # imports pandas

            result = write(options, lambda text: show(f"Writing the report: {text} ..."))
        print(show_report(result, sys.stdout))
        if options.opens:
            import webbrowser

            if not webbrowser.open(result.index.absolute().as_uri()):
                print("bnstudy-report: no browser could be started: open the address above.", file=sys.stderr)


def train(config: DictConfig) -> float | None:
    """Train one run, and return its objective for other sweepers, which launch each run by itself.

    For a sweep or a study Hydra calls the sweeper in `hydra_plugins` instead.
    """
    from hydra.core.hydra_config import HydraConfig

    from bnstudy.config.build import build_request, is_foreign
    from bnstudy.config.compose import SweepPoint, to_plain
    from bnstudy.store.runs import Store
    from bnstudy.sweep.command import run
    from bnstudy.sweep.summary import objective
    from bnstudy.validation import ConfigError

    launcher = HydraConfig.get().launcher
    keys = {} if is_foreign(launcher) else launcher
    request = build_request([SweepPoint((), to_plain(config))], keys, sys.argv[1:])
    if request.study is not None:
        raise ConfigError(f"study={request.option} is a sweep: leave hydra.mode and hydra/sweeper as they are.")
    run(request)
    if request.settings.dry_run:
        return None
    return objective(Store(request.settings.results).summary(request.runs[0].spec.run_id), request.settings.objective)


@contextmanager
def exit_statuses(program: str, debugging: bool = False) -> Iterator[None]:
    """Turn errors into a sentence on stderr and an exit status: 2 for a user's mistake, the error's own if it has one.

    debugging: show the traceback of a user's mistake.
    """
    try:
        with console.flushed_output():
            yield
    except KeyboardInterrupt:
        leave(program, console.STOPPED, 130)
    except BrokenPipeError:  # the reader of the output, such as head, has closed it
        console.drop(sys.stdout)
        sys.exit(141)
    except Exception as error:
        if console.is_interrupted(error):
            leave(program, console.STOPPED, 130)
        from bnstudy.config.messages import explain

        sentence = explain(error)
        if sentence is not None and not debugging:
            leave(program, sentence, 2)
        if hasattr(error, "exit_status"):
            leave(program, str(error), error.exit_status)
        if isinstance(error, OSError) and not debugging:
            is_unnamed = error.errno is not None and not error.filename
            what = f"The output or a file cannot be written ({error.strerror})" if is_unnamed else str(error)
            leave(program, f"{what}.", 1)
        raise


def leave(program: str, sentence: str, status: int) -> NoReturn:
    stage.info("")
    with suppress(OSError):
        print(f"{program}: {printable(sentence)}", file=sys.stderr)
    with suppress(OSError):
        console.flush_output()
    sys.exit(status)
