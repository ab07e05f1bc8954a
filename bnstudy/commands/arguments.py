"""What the subcommands share: their arguments, finding a run by the start of its id, and tables."""

from __future__ import annotations

import re
import sys
import textwrap
from argparse import SUPPRESS, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bnstudy.commands.settings import Options
from bnstudy.config.arguments import assignments, parse_flags
from bnstudy.config.folders import check_folder
from bnstudy.report.terminal import width_of, wrap
from bnstudy.store.packed import open_store
from bnstudy.store.runs import Store
from bnstudy.validation import ConfigError, printable

MIN_DIGITS = 4
"""So many digits of an id name a run, if no other one begins with them."""


@dataclass(frozen=True)
class Arguments:
    """The arguments of a subcommand: its flags, its words that are no key=value, and the others but for results_dir."""

    flags: Namespace
    named: tuple[str, ...]
    values: Mapping[str, str]
    store: Store
    options: Options


def read_arguments(
    name: str,
    help_text: str,
    arguments: Sequence[str],
    flags: Mapping[str, str] | None = None,
    runs: int = 0,
    takes_logger: bool = False,
    takes_folder: bool = False,
    keys: Collection[str] | None = (),
    takes_settings: bool = False,
    needs_store: bool = True,
) -> Arguments:
    """Parse the arguments of a subcommand.

    Args:
        flags: the help of each flag of its own, by its name without dashes.
        runs: how many ids of runs it needs.
        takes_logger: whether it takes the name of a logger, which the caller checks.
        takes_folder: whether it takes the name of a folder.
        keys: what may be set besides results_dir; None for anything.
        takes_settings: whether its help names settings among the words.

    Raises:
        ConfigError: an argument is not allowed, or there is no store.
    """
    program = f"bnstudy {name}"
    words = ["LOGGER"] * takes_logger + ["DIR"] * takes_folder + ["RUN"] * runs
    parser = _parser(program, help_text, words, flags or {}, takes_settings)
    found = parse_flags(parser, arguments)
    named = tuple(word for word in found.words if "=" not in word)
    takes_names = runs > 0 or takes_logger or takes_folder
    if named and not takes_names and keys is not None:
        raise ConfigError(f"{named[0]} is not allowed: {program} takes results_dir=FOLDER and the flags of its --help.")
    named = named if takes_names else ()
    known = None if keys is None else ("results_dir", *keys)
    values = assignments([word for word in found.words if word not in named], known)
    if runs and len(named) != runs:
        needed = "the id of a run" if runs == 1 else f"the ids of {runs} runs"
        example = " ".join(["0a1b2c3d", "5e6f7a8b"][:runs])
        raise ConfigError(
            f"{program} needs {needed}, such as {program} {example}, and was given {len(named)}: bnstudy list --runs "
            "lists them."
        )
    if takes_folder and len(named) != 1:
        raise ConfigError(f"{program} needs one folder, such as {program} packed, and was given {len(named)}.")
    if found.config_dir is not None:
        check_folder("--config-dir", str(found.config_dir))
    folders = (found.config_dir.expanduser(),) if found.config_dir else ()
    store = open_store(Path(values.pop("results_dir", "results")).expanduser())
    if needs_store and not store.results_dir.is_dir():
        raise ConfigError(f"results_dir={store.results_dir} is not allowed: there is no such folder.")
    return Arguments(found, named, values, store, Options(folders))


def _parser(
    program: str, help_text: str, words: Sequence[str], flags: Mapping[str, str], takes_settings: bool
) -> ArgumentParser:
    usage = [program, *words, *(f"[--{flag}]" for flag in flags), "[results_dir=FOLDER]"]
    usage += ["[key=value ...]"] * takes_settings
    parser = ArgumentParser(
        program,
        " ".join(usage),
        help_text,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("--help", "-h", action="help", help="show this text")
    parser.add_argument(
        "--config-dir", "-cd", metavar="DIR", type=Path, help="a folder like conf/, with files of your own"
    )
    for flag, text in flags.items():
        parser.add_argument(f"--{flag}", action="store_true", help=text)
    parser.add_argument("words", nargs="*", help=SUPPRESS)
    return parser


def find_run(store: Store, start: str) -> str:
    """The id of the run that begins with these digits; also the path of its folder is understood.

    Raises:
        ConfigError: there is none, or several.
    """
    digits = start.rstrip("/").rpartition("/")[2].lower()
    if not re.fullmatch(rf"[0-9a-f]{{{MIN_DIGITS},12}}", digits):
        allowed = f"an id of a run, or its first {MIN_DIGITS} or more digits (0-9, a-f), such as 0a1b2c3d"
        raise ConfigError(f"{start} is not allowed: it must be {allowed}.")
    found = [run_id for run_id in store.run_ids() if run_id.startswith(digits)]
    if not found:
        raise ConfigError(
            f"{start} is not a run in {store.results_dir}. bnstudy list --runs lists its runs; results_dir=FOLDER "
            "names another store."
        )
    if len(found) > 1:
        others = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise ConfigError(
            f"{start} is the start of {len(found)} ids, {', '.join(found[:3])}{others}: type more digits."
        )
    return found[0]


def indented(text: str, indent: int) -> str:
    """The text behind an indent, in lines that fit the terminal, or of 100 letters where there is none."""
    columns = width_of(sys.stdout) or 100
    return textwrap.indent(wrap(text, columns - 1 - indent), " " * indent)


def say(text: str) -> None:
    """Print text that may come from the store."""
    print(printable(text))
