"""From what is wrong with a configuration to one clear sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from bnstudy.validation import ConfigError, closest, nearest

STUMBLES = ("Config group override", "Unexpected type for root", "full_key: hydra.sweeper.params")
"""Of errors that are none of Hydra's own kinds and follow from a user's mistake all the same."""


def explain(error: Exception, config_dir: Path, config_name: str, arguments: Sequence[str]) -> str:
    """What is wrong, in a sentence: ours as they are, Hydra's with the nearest right name."""
    from hydra.errors import MissingConfigException, OverrideParseException

    text = str(error)
    if isinstance(error, ConfigError):
        return text
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        options = sorted(error.options or ())
        known = f" Known: {', '.join(options)}." if options else ""
        if group.startswith("hydra/"):
            known += " Others come with Hydra's plugins."
        return f"{group or '--config-name'}={option} is not known{nearest(option, options) or '.'}{known}"
    if isinstance(error, OverrideParseException):
        word = str(error.override)
        if re.fullmatch(r"\w+", word):
            return f"{word} cannot be read: write key=value, such as study={word}."
        return f"{word} cannot be read: write key=value, and quote what the shell would change."
    if "Config group override must be a string" in text:
        empty = next((a for a in arguments if re.fullmatch(r"\w+=(null|\d+)?", a)), "null")
        return f"{empty} is not allowed: choose one of the group's options (bnstudy --help lists them)."
    if match := re.search(r"(?:Ambiguous value for argument|Sweep parameters) '([^']*)'", text):
        return f"{match[1]} lists several values: add -m to run them all."
    if any(stumble in text for stumble in STUMBLES[1:]):
        given = next((a for a in arguments if a.lstrip("+").startswith("hydra.sweeper.params")), text)
        return (
            f"{given} cannot be set on the command line for this sweeper: write what it is to search as plain "
            "overrides, such as lr=interval(0.01,1)."
        )
    if match := re.search(r"Sweeping over Hydra's configuration is not supported : '([^']*)'", text):
        return f"{match[1]} is not allowed: a sweep has one choice of what is Hydra's."
    if match := re.search(r"Could not override '([^']*)'", text):
        return unknown_key(match[1], known_keys(config_dir, config_name, arguments, match[1].startswith("hydra.")))
    return " ".join(text.split())


def known_keys(config_dir: Path, config_name: str, arguments: Sequence[str], hydras: bool) -> set[str]:
    """All keys, Hydra's own or all others, of the config with the groups' options that the arguments choose."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    def is_choice(group: str) -> bool:
        return (config_dir / group).is_dir() or group.startswith("hydra/")

    chosen = [a for a in arguments if re.fullmatch(r"[\w/]+=\w+", a) and is_choice(a.partition("=")[0])]
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        try:
            composed = compose(config_name, chosen, return_hydra_config=hydras)
        except HydraException:  # an option from elsewhere, by --config-dir
            composed = compose(config_name, return_hydra_config=hydras)
    config: Any = OmegaConf.to_container(composed, resolve=False)
    kept = {"hydra": config["hydra"]} if hydras else config
    groups = set() if hydras else {folder.name for folder in config_dir.iterdir() if folder.is_dir()}
    return groups | {key for key in flat_keys(kept) if not key.endswith("_target_")}


def runs_listed(arguments: Sequence[str]) -> list[str]:
    """The report's arguments with `runs=ID1,ID2` as a list of texts: Hydra would take the comma for a sweep, and some
    ids for numbers."""
    listed = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        ids = [text for part in value.strip("[]").split(",") if (text := part.strip(" '\""))]
        is_list = key == "runs" and value != "null" and all(re.fullmatch(r"[\w.-]+", text) for text in ids)
        listed.append(f"runs=[{','.join(repr(text) for text in ids)}]" if is_list and ids else argument)
    return listed


def compare_quoted(arguments: Sequence[str]) -> list[str]:
    """The report's arguments with compare='A vs B' as one text: names of arms have commas and equals signs, which are
    Hydra's."""
    quoted = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        is_text = key == "compare" and value not in ("", "null")
        text = value[1:-1] if value[:1] == value[-1:] and value[:1] in ("'", '"') else value
        escaped = text.replace("'", "\\'")
        quoted.append(f"compare='{escaped}'" if is_text else argument)
    return quoted


FLAGS_WITH_VALUE = {"--cfg", "--package", "--config-path", "--config-name", "--config-dir", "--info"}
FLAGS_WITH_VALUE |= {"-c", "-p", "-cp", "-cn", "-cd", "-i"}


def flags_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with Hydra's flags, which it wants in front, moved there.

    Raises:
        ConfigError: a key is written as a flag.
    """
    flags: list[str] = []
    others: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        key, is_assigned, _ = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and is_assigned and f"--{key}" not in FLAGS_WITH_VALUE:
            raise ConfigError(f"{argument} is not a flag: write {argument.lstrip('-')}, without dashes.")
        if not argument.startswith("-"):
            others.append(argument)
        else:
            flags.append(argument)
            if argument in FLAGS_WITH_VALUE:
                flags.extend([value] if (value := next(rest, None)) is not None else [])
    return flags + others


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The sentence for a key that is not among `known`, with the nearest: one beside it, or of its name elsewhere."""
    others = sorted(set(known) - {key})
    parent, _, name = key.rpartition(".")
    beside = under(parent, others)
    near = [k for k in others if k.rpartition(".")[2] == key]
    if not near and (found := closest(name, beside) or closest(key, () if beside and parent else others)):
        near = [beside.get(found, found)]
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    while parent and not under(parent, others):
        parent = parent.rpartition(".")[0]
    return f"{key} is not a known key{hint} Known: {', '.join(under(parent, others).values() or others)}."


def under(parent: str, keys: Iterable[str]) -> dict[str, str]:
    """The keys one level below `parent`, by their names there."""
    return {key.rpartition(".")[2]: key for key in keys if key.rpartition(".")[0] == parent}


def flat_keys(node: Mapping[str, Any], prefix: str = "") -> list[str]:
    """All dotted keys of a config, those of the nodes themselves included."""
    keys: list[str] = []
    for name, value in node.items():
        keys.append(prefix + name)
        if isinstance(value, Mapping):
            keys += flat_keys(value, f"{prefix}{name}.")
    return keys
