"""One clear sentence for each mistake in a configuration."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Mapping
from typing import Any

from bnstudy.config.help import NAMED, is_study
from bnstudy.store.files import conf_dir
from bnstudy.validation import ConfigError, closest, nearest

SYNONYMS = {
    "lr": "learning_rate learningrate rate eta alpha step_size",
    "batch_size": "bs batch minibatch",
    "epochs": "num_epochs n_epochs",
    "steps": "iterations iters num_steps max_steps updates",
    "seed": "seeds random_seed random_state",
    "data": "dataset datasets images",
    "model": "network net arch architecture",
    "model.width": "hidden hidden_size hidden_dim units neurons channels",
    "model.depth": "layers num_layers n_layers",
    "norm": "normalization normalisation normalizer batchnorm bn",
    "optim": "optimizer optimiser opt",
    "optim.weight_decay": "wd l2",
    "schedule": "scheduler lr_schedule lr_scheduler",
    "loss": "criterion objective_function",
    "init": "initialization initialisation initializer",
    "probe": "probes metrics measure",
    "precision": "amp bf16 dtype",
    "device": "gpu gpus cuda accelerator",
    "early_stopping.patience": "patience",
    "hydra.launcher.workers": "workers num_workers n_jobs jobs processes",
    "results_dir": "output output_dir out_dir outdir results log_dir logdir store",
    "study": "experiment studies",
    "compare": "versus vs",
    "runs": "run run_id run_ids id",
    "claims": "claim",
}
"""What people type for a key, in other tools or by habit, by our key."""


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
        advice = "and quote what the shell would change" if "=" in word else write_without_spaces(word, "lr=0.1")
        return f"{word} cannot be read: write key=value, {advice}."
    if isinstance(error, HydraException) and isinstance(cause, ConfigAttributeError | ConfigKeyError):
        return unknown_key(str(cause.full_key), _keys_beside(cause))
    if isinstance(error, HydraException) and isinstance(cause, OmegaConfBaseException):
        return f"{_in_one_line(error)}: {_in_one_line(cause)}".removeprefix(": ")
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        # Further lines are about omegaconf's own objects.
        return f"{error.full_key}: {str(error.msg).splitlines()[0]}"
    return _in_one_line(error) if isinstance(error, HydraException | OmegaConfBaseException) else None


def write_without_spaces(word: str, example: str) -> str:
    """The advice for a word without =, which is the name of a study or was typed with spaces around the =."""
    return f"without spaces, such as {f'study={word}' if is_study(word) else example}"


def _in_one_line(error: BaseException) -> str:
    return " ".join(line.strip() for line in str(error).splitlines())


def _keys_beside(error: Any) -> set[str]:
    """All keys of the composed config in which omegaconf did not find a key: Hydra's own, or all others."""
    from omegaconf import OmegaConf

    config: Any = OmegaConf.to_container(error.parent_node._get_root(), resolve=False)
    hydras = config.pop("hydra", {})
    if str(error.full_key).startswith("hydra."):
        return flat_keys({"hydra": hydras})
    return flat_keys(config) | {"study", "hydra.launcher.workers"}  # there is no such node without a study


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The sentence for a key that is not among `known`, with the nearest one: a sibling, or the same name elsewhere.

    Without such a one it has all keys beside it.
    """
    others = sorted(set(known) - {key})
    parent, _, name = key.rpartition(".")
    siblings = children(parent, others)
    near = [k for k in others if k.rpartition(".")[2] == key.lower() or key.lower() in SYNONYMS.get(k, "").split()]
    if parent and children(parent, others) and (options := options_with(parent, name)):
        return f"{key} is not a known key here. Options of {parent} that have it: {', '.join(options)}."
    for group in () if parent else sorted({*NAMED} & {*others}):
        if f"{group}.{name}" not in near and (options := options_with(group, name)):
            near.append(f"{group}.{name} (with {group}={options[0]})")
    if not near and (found := closest(name, siblings) or closest(key, () if siblings and parent else others)):
        near = [siblings.get(found, found)]
    if near:
        return f"{key} is not a known key; did you mean {' or '.join(near)}?"
    while parent and not children(parent, others):
        parent = parent.rpartition(".")[0]
    names = ", ".join(children(parent, others).values() or others)
    return f"{key} is not a known key. " + (f"Known: {names}." if names else "There are no keys.")


def options_with(group: str, name: str) -> list[str]:
    """The options of a group that have a key of this name."""
    has_key = re.compile(rf"^{re.escape(name)}:", re.MULTILINE)
    files = sorted((conf_dir() / group).glob("*.yaml")) if group.isidentifier() else []
    return [path.stem for path in files if has_key.search(path.read_text(encoding="utf-8"))]


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
