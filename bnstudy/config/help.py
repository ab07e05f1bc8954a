"""What `bnstudy` and `bnstudy --help` say: how to begin, the subcommands, and everything that can be set."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bnstudy.store.files import conf_dir

BEGIN = """bnstudy trains networks that differ in their normalization, and records what
happens inside.

To begin with:

  bnstudy study=quickstart                  train a small study, in about a minute
  bnstudy-report study=quickstart --open    read its answer
  bnstudy list                              see what else can be asked

{more}"""

MORE = "bnstudy --help lists all that can be set."

USAGE = """Training:

  bnstudy norm=batch lr=0.1 epochs=2                 one run
  bnstudy -m norm=none,batch lr=0.1,1 epochs=2       a sweep: every combination
  bnstudy study=lr_tolerance scale=quick             a study: it has a question
  bnstudy study=lr_tolerance dry_run=true            what it would train, how long
  bnstudy-report study=lr_tolerance                  the report on it
"""

ENDING = """Flags: -m sweeps; --config-dir DIR adds options of your own; --cfg job prints
the composed configuration; --version; --hydra-help lists those of Hydra.
Quote what your shell would change: 'seed=range(0,5)'.
Completion: eval "$(bnstudy --shell-completion install=bash)"; also zsh, fish; the
same for bnstudy-report."""

NAMED = ("model", "norm", "init", "data", "optim", "schedule", "loss", "probe", "logger", "scale")
"""The groups of which a run has an option, in the order of the help."""

COMMENT = re.compile(r"^(\w+):[^#\n]*# (.+)$", re.MULTILINE)


def first_steps() -> str:
    """For a command without words."""
    return BEGIN.format(more=MORE)


def training_help(
    overrides: Sequence[str], config_dir: str | None, subcommands: Mapping[str, str], width: int | None
) -> str:
    """The help of `bnstudy`, with the keys of the options that `overrides` choose.

    Raises:
        HydraException: the overrides cannot be composed.
    """
    width = min(width or 80, 120)
    config, choices = compose_defaults(overrides, config_dir)
    folders = [conf_dir(), *([Path(config_dir).expanduser()] if config_dir else [])]
    named = {name: options(name, folders) for name in NAMED}
    own = {key: value for key, value in config.items() if key not in {*NAMED, "study"}}
    return "\n".join(
        [
            BEGIN.format(more=USAGE),
            "Subcommands (bnstudy NAME --help):\n",
            *_entries({f"bnstudy {name}": text for name, text in subcommands.items()}, width),
            "\nGroups; each run has one option of each, of probe also several:\n",
            *_entries({f"{key}={choices.get(key)}": _others(named[key], choices.get(key)) for key in named}, width),
            "\nKeys of these options; bnstudy norm=group --help has those of others:\n",
            *_entries({key: keys for key in NAMED if (keys := " ".join(short_keys(config.get(key))))}, width),
            "\nAll other keys, with their defaults:\n",
            *_entries(dict(_own_keys(own)), width),
            "\nStudies (study=NAME):\n",
            *_entries(study_titles(folders), width),
            f"\n{ENDING}",
        ]
    )


def compose_defaults(overrides: Sequence[str], config_dir: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """The composed config without Hydra's node, and the chosen option of each group."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    search = [f"hydra.searchpath=[file://{Path(config_dir).expanduser().absolute()}]"] if config_dir else []
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = compose("config", [*overrides, *search], return_hydra_config=True)
    choices = {key: str(value) for key, value in composed.hydra.runtime.choices.items()}
    config: Any = OmegaConf.to_container(
        OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"]), resolve=False
    )
    return config, choices


def options(group: str, folders: Sequence[Path]) -> list[str]:
    """The options of a group, also those in its folders, such as `small/mlp`."""
    found = {
        str(path.relative_to(folder / group).with_suffix(""))
        for folder in folders
        for path in (folder / group).glob("**/*.yaml")
    }
    return sorted(found, key=lambda name: ("/" in name, name))


def study_titles(folders: Sequence[Path]) -> dict[str, str]:
    """The question of each study, by name; a later folder's file replaces one of the same name."""
    import yaml

    paths = {path.stem: path for folder in folders for path in (folder / "study").glob("*.yaml")}
    titles = {}
    for name, path in sorted(paths.items()):
        try:
            content = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except (OSError, ValueError, yaml.YAMLError):
            continue  # training it says what is wrong
        node = content if isinstance(content, Mapping) else {}
        title = node.get("title") or (node.get("study") or {}).get("title")
        titles[name] = title if isinstance(title, str) else "All studies, or some: 'study.names=[cost,affine]'"
    return titles


def is_study(name: str) -> bool:
    """Whether bnstudy has such a study."""
    return (conf_dir() / "study" / f"{name}.yaml").is_file()


def short_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """`width=64` for each value of an option; of a mapping of nodes, such as probes, their names."""
    if not isinstance(node, Mapping):
        return
    if not prefix and node and all(isinstance(value, Mapping) for value in node.values()):
        yield ", ".join(map(str, node))
        return
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from short_keys(value, f"{prefix}{key}.")
        elif key not in ("_target_", "name"):
            yield f"{prefix}{key}={_typed(value)}"


def _own_keys(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The keys outside of groups, with the comments of config.yaml."""
    comments = dict(COMMENT.findall((conf_dir() / "config.yaml").read_text()))
    for key, value in config.items():
        if isinstance(value, Mapping):
            inner = " ".join(short_keys(value))
            yield key, f"{inner} ({comments[key]})" if key in comments else inner
        else:
            yield f"{key}={_typed(value)}", comments.get(key, "")


def _typed(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{','.join(map(_typed, value))}]" if isinstance(value, list) else f"{value}"


def _others(names: Sequence[str], chosen: str | None) -> str:
    others = [name for name in names if name != chosen]
    return f"or {', '.join(others)}" if others else ""


def _entries(texts: Mapping[str, str], width: int, column: int = 26) -> Iterator[str]:
    """Names in one column, wrapped texts in the other."""
    for name, text in texts.items():
        head = f"  {name}"
        if len(head) >= column and text:
            yield head
            head = ""
        lines = textwrap.wrap(text, width - column, break_long_words=False, break_on_hyphens=False) or [""]
        yield f"{head:{column}}{lines[0]}".rstrip()
        yield from (f"{'':{column}}{line}" for line in lines[1:])
