"""The arguments of both commands: flags and key=value words."""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bnstudy import __version__
from bnstudy.config.folders import check_folder
from bnstudy.config.free_keys import with_free_key
from bnstudy.config.messages import unknown_key, write_without_spaces
from bnstudy.store.files import conf_dir
from bnstudy.store.plans import Plans
from bnstudy.store.renames import with_present_key
from bnstudy.validation import ConfigError, closest

if TYPE_CHECKING:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Override


def parse_flags(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Parse flags that may stand anywhere among the key=value words."""

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}.")

    parser.error = refuse  # type: ignore[method-assign]
    flags, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        word = unknown[0]
        is_assignment = word.startswith("--") and "=" in word
        advice = f"write {word.lstrip('-')}, without dashes" if is_assignment else "a value is written key=value"
        raise ConfigError(f"{word} is not a flag: {advice}.")
    return flags


def parse_training_arguments(arguments: Sequence[str]) -> tuple[ArgumentParser, Namespace]:
    """Hydra's parser, and what it parsed from the arguments of `bnstudy`."""
    from hydra._internal.utils import get_args_parser
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = get_args_parser()
    if "--version" in arguments:  # Hydra's parser would print Hydra's
        print(f"bnstudy {__version__}")
        parser.exit()
    flags = parse_flags(parser, arguments)
    if flags.multirun and (flags.cfg or flags.info):
        raise ConfigError("-m is not allowed with --cfg or --info, which show a single run: leave it out.")
    if flags.help or flags.hydra_help or flags.shell_completion:
        return parser, flags
    if flags.config_dir is not None:
        check_folder("--config-dir", flags.config_dir)
    hydras = OverridesParser.create()
    overrides = [read_word(with_free_key(with_present_key(word)), hydras) for word in flags.overrides]
    flags.overrides = [override.input_line for override in overrides]
    samples = any(o.key_or_group == "hydra/sweeper" and o.value() != "bnstudy" for o in overrides)
    for override in overrides:
        _check_override(override, flags.config_dir, samples)
    _check_given_once(overrides)
    keys = {override.get_key_element() for override in overrides}
    if not keys.isdisjoint({"study", "hydra.mode"}):
        # Hydra finds the mode of a study in its config, and takes a config that it cannot compose for a single run.
        flags.multirun |= "hydra.mode" not in keys and not (flags.cfg or flags.info or flags.run)
    elif not flags.multirun and (line := next((o.input_line for o in overrides if o.is_sweep_override()), None)):
        raise ConfigError(f"{line} lists several values: add -m to run them all.")
    if flags.multirun and not samples and flags.config_name is None and flags.config_path is None:
        flags.overrides = pass_to_sweeper(overrides)
    return parser, flags


PATHS = ("results_dir", "cache_dir")
"""Keys whose values are paths, as typed: they are never swept."""


def read_word(word: str, parser: OverridesParser) -> Override:
    """Read a word by Hydra's grammar. Paths, and texts that the grammar does not allow, are put into quotes for it.

    Raises:
        OverrideParseException: the word cannot be read.
    """
    from hydra.core.override_parser.types import Quote, QuotedString
    from hydra.errors import HydraException

    key, _, value = word.partition("=")
    if not key.strip("+~"):
        raise ConfigError(f"'{word}' cannot be read: write key=value, such as lr=0.1.")
    quoted = f"{key}={QuotedString(value, Quote.single).with_quotes()}"
    is_path = key in PATHS and value not in ("", "null")
    try:
        override = parser.parse_overrides([word])[0]
        if not is_path or isinstance(override._value, QuotedString):
            return override
        return parser.parse_overrides([quoted])[0]
    except (HydraException, ValueError):  # the latter: a number of more than 4300 digits
        if is_path or (value and ("/" in value or not set(value) & set("[]{}(),"))):
            return parser.parse_overrides([quoted])[0]
        raise


def pass_to_sweeper(overrides: Sequence[Override]) -> list[str]:
    """The words for Hydra. Those that describe runs reach the sweeper as `hydra.sweeper.words`: Hydra would apply
    `norm.groups=4` to its default norm, not to those that are swept."""
    from hydra.core.override_parser.types import Quote, QuotedString

    kept: list[str] = []
    words: list[str] = []
    for override in overrides:
        top = re.split(r"[./]", override.key_or_group)[0]
        (kept if top in ("study", "scale", "hydra") else words).append(str(override.input_line))
    escaped = [QuotedString(word.replace("${", "\\${"), Quote.single).with_quotes() for word in words]
    return [*kept, f"hydra.sweeper.words=[{','.join(escaped)}]"]


def _check_given_once(overrides: Sequence[Override]) -> None:
    """Refuse a second value of a key, of which Hydra would take the last. Mappings are merged."""
    given: dict[str, str | None] = {}
    for override in (override for override in overrides if not isinstance(override.value(), dict)):
        key, line = override.get_key_element().lstrip("+"), override.input_line
        if given.setdefault(key, line) != line:
            raise ConfigError(f"{line} is not allowed: {key} is given already, as {given[key]}.")


NO_GROUPS = {
    "claim": "a study lists its claims. To judge others: bnstudy study=NAME 'study.claims=[NAME,NAME]'",
    "figure": "a run has no figure",
    "reproduction": "a run has no reproduction",
}
"""The folders of conf/ that hold no options of a run, with the reason."""


def _check_override(override: Override, config_dir: str | None, samples: bool) -> None:
    """Refuse values for which Hydra has no clear error. `samples`: the sweeper is not bnstudy's."""
    key, line = override.key_or_group, override.input_line
    if key in NO_GROUPS:
        raise ConfigError(f"{line} is not allowed: {NO_GROUPS[key]}.")
    from bnstudy.config.compose import check_values

    check_values(override)
    if override.is_sweep_override():
        if override.is_hydra_override():
            raise ConfigError(f"{line} is not allowed: a sweep has one value for each of Hydra's own keys.")
        return
    value = override.value()
    folders = [Path(folder, key) for folder in (conf_dir(), config_dir) if folder]
    is_group = "/" in key or any(folder.is_dir() for folder in folders)
    if is_group and not isinstance(value, str | list | dict) and not (override.is_delete() and value is None):
        raise ConfigError(f"{line} is not allowed: choose one of the group's options (bnstudy --help lists them).")
    if samples and key.startswith("hydra.sweeper.params."):
        raise ConfigError(
            f"{line} cannot be set on the command line for this sweeper: write what it searches as plain overrides, "
            "such as lr=interval(0.01,1)."
        )


REPORT_HELP = """bnstudy-report: write the report on the runs in a store.

bnstudy-report study=lr_tolerance                   on a study
bnstudy-report study=all scale=quick                on all studies, with a verdict on each claim
bnstudy-report runs=0a1b2c3d4e5f,112233445566       on the runs with these ids
bnstudy-report                                      on every run in results_dir
bnstudy-report study=lr_tolerance compare='BatchNorm, lr=1 vs NoNorm, lr=0.1'
                                                    one arm against another

Everything that can be set (key=value), with its defaults:

study: null           a study that was run; all: each study in the store; null: every run in the store
scale: null           quick, standard or full; null: the scale that was run last
runs: null            ids of runs, ID1,ID2, instead of a study
compare: null         two arms, A vs B: a comparison instead of the report
claims: null          a folder of your own claims, such as my_conf/claim
results_dir: results  where the store is

The report is written to <results_dir>/reports/NAME: index.html, report.md, claims.json, runs.csv and figures/.
"""
REPORT_KEYS = ("study", "scale", "runs", "compare", "claims", "results_dir")


@dataclass(frozen=True)
class ReportOptions:
    """The report that `bnstudy-report` is to write.

    opens: in the browser.
    """

    results_dir: Path
    study: str | None
    scale: str | None
    runs: tuple[str, ...]
    compare: str | None
    claim_dirs: tuple[Path, ...]
    config_dirs: tuple[Path, ...]
    opens: bool = False


def parse_report_arguments(arguments: Sequence[str]) -> ReportOptions:
    """The options in the arguments of `bnstudy-report`."""
    parser = ArgumentParser(
        "bnstudy-report", "bnstudy-report [key=value ...]", REPORT_HELP, formatter_class=RawDescriptionHelpFormatter
    )
    help_text = "a folder like conf/, with your own claims in DIR/claim, figures in DIR/figure, ..."
    parser.add_argument("--config-dir", "-cd", metavar="DIR", type=Path, help=help_text)
    parser.add_argument("--open", action="store_true", help="open the report in the browser")
    parser.add_argument("--version", action="version", version=f"bnstudy-report {__version__}")
    parser.add_argument("words", nargs="*", metavar="key=value", help="any of the keys above")
    flags = parse_flags(parser, arguments)
    refuse_changes(flags.words)
    values = {key: value for key, value in assignments(flags.words, REPORT_KEYS).items() if value != "null"}
    if flags.config_dir is not None:
        check_folder("--config-dir", str(flags.config_dir))
    if "claims" in values:
        check_folder("claims", values["claims"])
    runs = tuple(run_id for word in values.get("runs", "").strip("[]").split(",") if (run_id := _unquoted(word)))
    if "runs" in values and not runs:
        raise ConfigError(f"runs={values['runs']} is not allowed: it must be ids of runs, such as runs=0a1b2c3d4e5f.")
    return ReportOptions(
        results_dir=Path(values.get("results_dir", "results")).expanduser(),
        study=values.get("study"),
        scale=values.get("scale"),
        runs=runs,
        compare=values.get("compare"),
        claim_dirs=(Path(values["claims"]).expanduser(),) if "claims" in values else (),
        config_dirs=(flags.config_dir.expanduser(),) if flags.config_dir else (),
        opens=flags.open,
    )


def refuse_changes(words: Sequence[str]) -> None:
    """Raises ConfigError for a key of the runs beside a study that has variants in the store, with their names."""
    given = {key: value for key, _, value in (word.partition("=") for word in words)}
    changed = [word for word in words if "=" in word and not closest(word.partition("=")[0], REPORT_KEYS)]
    if not changed or "study" not in given:
        return
    plans = Plans(Path(given.get("results_dir", "results")).expanduser())
    if variants := plans.variants_of(given["study"]):
        raise ConfigError(
            f"{changed[0]} is not allowed: a study that was run with changes is a study of its own. In "
            f"{plans.results_dir}: {', '.join(f'study={name}' for name in variants)}."
        )


def assignments(words: Sequence[str], known: Collection[str] | None = None) -> dict[str, str]:
    """The values of key=value words, by key.

    known: the allowed keys; None if the caller checks them.
    """
    values: dict[str, str] = {}
    for word in words:
        key, is_assignment, value = word.partition("=")
        if not is_assignment:
            example = "study=quickstart" if known and "study" in known else "lr=0.1"
            raise ConfigError(f"{word} cannot be read: write key=value, {write_without_spaces(word, example)}.")
        if known is not None and key not in known:
            raise ConfigError(unknown_key(key, known))
        if key in values:
            raise ConfigError(f"{word} is not allowed: {key} is given already, as {key}={values[key]}.")
        values[key] = _unquoted(value)
        if key == "results_dir" and values[key] in ("", "null"):
            raise ConfigError(f"{word} is not allowed: it must be the name of a folder.")
        if not values[key]:
            raise ConfigError(f"{word} is not allowed: it has no value; leave {key} out, or write {key}=null.")
    return values


def _unquoted(text: str) -> str:
    """The text without quotes around it: reports of earlier versions show commands with values quoted for Hydra."""
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
