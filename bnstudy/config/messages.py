"""One clear sentence for each mistake in a configuration."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from typing import Any

from bnstudy.validation import ConfigError, closest, nearest


def explain(error: Exception) -> str | None:
    """The sentence for a user's mistake, with the nearest right name; None if `error` is not a user's mistake."""
    import yaml

    if isinstance(error, ConfigError | yaml.YAMLError):
        return _in_one_line(error)
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"The path {error.filename} is too long: choose a shorter name."
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

    cause = error.__cause__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        options = sorted(error.options or ())
        known = f" Known: {', '.join(options)}." if options else ""
        plugins = " Others come with Hydra's plugins." if group.startswith("hydra/") else ""
        hint = nearest(option, options) or "."
        return f"{group or '--config-name'}={option} is not known{hint}{known}{plugins}"
    if isinstance(error, OverrideParseException):
        word = str(error.override)
        advice = "and quote what the shell would change" if "=" in word else write_without_spaces(word)
        return f"{word} cannot be read: write key=value, {advice}."
    if isinstance(error, HydraException) and isinstance(cause, ConfigAttributeError | ConfigKeyError):
        return unknown_key(str(cause.full_key), _keys_beside(cause))
    if isinstance(error, HydraException) and isinstance(cause, OmegaConfBaseException):
        return f"{_in_one_line(error)}: {_in_one_line(cause)}".removeprefix(": ")
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        # Further lines are about omegaconf's own objects.
        return f"{error.full_key}: {str(error.msg).splitlines()[0]}"
    return _in_one_line(error) if isinstance(error, HydraException | OmegaConfBaseException) else None


def write_without_spaces(word: str) -> str:
    """The advice for a word without =, which is a name or was typed with spaces around the =."""
    return f"without spaces, such as {f'study={word} or ' if word.isidentifier() else ''}lr=0.1"


def _in_one_line(error: BaseException) -> str:
    return " ".join(line.strip() for line in str(error).splitlines())


def _keys_beside(error: Any) -> set[str]:
    """All keys of the composed config in which omegaconf did not find a key: Hydra's own, or all others."""
    from omegaconf import OmegaConf

    config: Any = OmegaConf.to_container(error.parent_node._get_root(), resolve=False)
    hydras = config.pop("hydra", {})
    if str(error.full_key).startswith("hydra."):
        return flat_keys({"hydra": hydras})
    return flat_keys(config) | {"study"}  # there is no such node without a study


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The sentence for a key that is not among `known`, with the nearest one: a sibling, or the same name elsewhere."""
    others = sorted(set(known) - {key})
    parent, _, name = key.rpartition(".")
    siblings = children(parent, others)
    near = [k for k in others if k.rpartition(".")[2] == key]
    if not near and (found := closest(name, siblings) or closest(key, () if siblings and parent else others)):
        near = [siblings.get(found, found)]
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    while parent and not children(parent, others):
        parent = parent.rpartition(".")[0]
    names = ", ".join(children(parent, others).values() or others)
    return f"{key} is not a known key{hint} " + (f"Known: {names}." if names else "There are no keys.")


def children(parent: str, keys: Iterable[str]) -> dict[str, str]:
    """The keys one level below `parent`, by their last names."""
    return {key.rpartition(".")[2]: key for key in keys if key.rpartition(".")[0] == parent}


def flat_keys(node: Mapping[str, Any], prefix: str = "") -> set[str]:
    """All dotted keys of a config except `_target_`, inner nodes included."""
    keys = set()
    for name, value in node.items():
        if name != "_target_":
            keys.add(prefix + name)
        if isinstance(value, Mapping):
            keys |= flat_keys(value, f"{prefix}{name}.")
    return keys
