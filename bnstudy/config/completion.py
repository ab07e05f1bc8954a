"""Completion in the shell, of both commands: subcommands, keys, the options of groups, studies.

Hydra's own knows neither subcommands nor `bnstudy-report`, and changes how the shell divides the words of all commands.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from bnstudy.config.arguments import REPORT_KEYS
from bnstudy.config.help import compose_defaults, options
from bnstudy.config.messages import flat_keys
from bnstudy.report.commands import RESULTS_DIR
from bnstudy.store.files import conf_dir
from bnstudy.validation import ConfigError

FLAG = "--shell-completion"

SCRIPTS = {
    # In bash `study=qu` may be two words, of which the second is completed.
    "bash": """{function}() {{
    local IFS=$'\\n' line="${{COMP_LINE:0:COMP_POINT}}"
    COMPREPLY=($(COMP_LINE="$line" {program} -sc query=bash 2>/dev/null))
    local word="${{line##* }}"
    if [[ $COMP_WORDBREAKS == *=* && $word == *=* ]]; then COMPREPLY=("${{COMPREPLY[@]#"${{word%=*}}="}}"); fi
    if [[ ${{COMPREPLY[0]}} == *[=.] ]]; then compopt -o nospace 2>/dev/null; fi
}}
complete -o default -F {function} {program}""",
    "zsh": """{function}() {{
    local -a found
    found=(${{(f)"$(COMP_LINE="${{(j: :)words[1,CURRENT]}}" {program} -sc query=zsh 2>/dev/null)"}})
    compadd -Q -S '' -a found
}}
compdef {function} {program}""",
    "fish": """complete -c {program} -f \\
    -a '(env COMP_LINE=(commandline -cp | string collect) {program} -sc query=fish)'""",
}

FLAGS = {
    "bnstudy": ["--help", "--version", "--multirun", "--config-dir", "--cfg", "--info", "--hydra-help", FLAG],
    "bnstudy-report": ["--help", "--version", "--open", "--config-dir", FLAG],
}
TAKE_SETTINGS = {"list": (), "pack": (), "prune": ("number=",), "export": ("runs=", "to=")}
"""The subcommands that choose runs by their settings, with further keys."""
TAKE_RUNS = ("show", "diff")
NOT_CHOSEN = ("claim", "figure", "reproduction")
"""Folders of conf/ that are no groups of a run."""


FlagsOf = Callable[[str], Sequence[str]]
"""The flags of a subcommand."""


def answer(program: str, word: str, line: str, subcommands: Collection[str], flags_of: FlagsOf) -> str:
    """The answer to `--shell-completion word`: the script to evaluate, or what the line may go on with.

    Raises:
        ConfigError: the word is none of these.
    """
    action, _, shell = word.partition("=")
    if action not in ("install", "query") or shell not in SCRIPTS:
        shells = ", ".join(f"install={name}" for name in SCRIPTS)
        raise ConfigError(f"{FLAG} {word} is not allowed: it must be one of {shells}.")
    if action == "install":
        return SCRIPTS[shell].format(program=program, function=f"_{program.replace('-', '_')}")
    words = line.split(" ")[1:]
    return "\n".join(complete(program, words[:-1], words[-1], subcommands, flags_of) if words else ())


def complete(
    program: str,
    before: Sequence[str],
    word: str,
    subcommands: Collection[str] = (),
    flags_of: FlagsOf = lambda _: (),
) -> list[str]:
    """The words that begin with `word`, which is the last of a command line."""
    folder = next((w.partition("=")[2] for w in before if w.startswith("--config-dir=")), None)
    folders = [conf_dir(), *([Path(folder).expanduser()] if folder else [])]
    name = before[0] if program == "bnstudy" and before and before[0] in subcommands else None
    trains = program == "bnstudy" and (name is None or name in TAKE_SETTINGS)
    key, is_value, value = word.partition("=")
    if is_value:
        values = values_of(key, folders, trains)
        begin, comma, last = value.rpartition(",")  # of a sweep
        return [f"{key}={begin}{comma}{option}" for option in values if option.startswith(last)]
    if word.startswith("-"):
        return _beginning(flags_of(name) if name else FLAGS[program], word)
    if name:
        return _beginning(words_of(name, before, word, folders, folder), word)
    if not trains:
        return _beginning([f"{name}=" for name in REPORT_KEYS], word)
    names = [*subcommands] if not before else []
    return _beginning([*names, *training_keys(before, word, folder)], word)


def words_of(name: str, before: Sequence[str], word: str, folders: Sequence[Path], folder: str | None) -> Iterable[str]:
    """What may stand in a subcommand besides flags."""
    yield "results_dir="
    results = next(
        (Path(w.partition("=")[2]).expanduser() for w in before if w.startswith("results_dir=")), RESULTS_DIR
    )
    if name in TAKE_RUNS and (results / "runs").is_dir():
        yield from (path.name for path in (results / "runs").iterdir() if not path.name.startswith("."))
    if name == "list" and len(before) == 1:
        yield from ("claims", "runs", "studies")
    if name == "export" and not any(w in options("logger", folders) for w in before):
        yield from (option for option in options("logger", folders) if option != "none")
    elif name in TAKE_SETTINGS and (name != "list" or {"runs", "--runs"} & {*before}):
        settings = {key for key in training_keys((), word, folder) if not key.startswith("results_dir")}
        yield from {*settings, "scale=", "status=", *TAKE_SETTINGS[name]}


def values_of(key: str, folders: Sequence[Path], trains: bool) -> list[str]:
    """The options of a group, or true and false."""
    if key in NOT_CHOSEN or (not trains and key not in ("study", "scale")):
        return []
    if (conf_dir() / key).is_dir() and key:
        return options(key, folders)
    return ["true", "false"] if key in ("dry_run", "progress", "refine") else []


def training_keys(before: Sequence[str], word: str, folder: str | None) -> Iterable[str]:
    """`lr=`, `model=` and `model.` for the keys of `model`; these themselves once the dot is typed."""
    groups = {"study"} | {path.name for path in conf_dir().iterdir() if path.is_dir() and path.name not in NOT_CHOSEN}
    chosen = [w for w in before if w.partition("=")[0] in groups - {"study"} and "," not in w]
    try:
        config = compose_defaults(chosen, folder)[0]
    except Exception:  # a word before is wrong; the command will say so
        config = compose_defaults([], None)[0]
    inner = {key for key, node in _nodes(config)}
    leaves = {f"{key}=" for key in flat_keys(config) - inner} | {f"{group}=" for group in groups}
    depth = word.count(".")
    return {key if key.count(".") <= depth else ".".join(key.split(".")[: depth + 1]) + "." for key in leaves}


def _nodes(config: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, Mapping[str, object]]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield f"{prefix}{key}", value
            yield from _nodes(value, f"{prefix}{key}.")


def _beginning(words: Iterable[str], word: str) -> list[str]:
    return sorted(w for w in words if w.startswith(word))
