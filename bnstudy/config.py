"""From a composed Hydra config to a `RunSpec` and `Settings`, and from what is wrong with it to one clear sentence."""

from __future__ import annotations

import importlib
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

from bnstudy.spec import ConfigError, RunSpec, Spec, nearest

_PACKAGE = Path(__file__).parent


def conf_dir() -> Path:
    """Where the configs are: in an installed wheel inside the package, in a checkout beside it."""
    installed = _PACKAGE / "conf"
    return installed if installed.is_dir() else _PACKAGE.parent / "conf"


def report_conf_dir() -> Path:
    """Where the report's config is: apart, since its `study` names one that was run and is no config group."""
    return _PACKAGE / "analysis" / "conf"


@dataclass(frozen=True)
class Settings(Spec):
    """How and where runs are done: nothing here changes what a run is.

    cache_dir: decoded datasets; null for `<results_dir>/cache`.
    threads: CPU threads; null for torch's choice.
    checkpoint_seconds: an unfinished run is saved about this often.
    """

    device: str = "auto"
    engine: Literal["auto", "serial"] = "auto"
    compile: bool = False
    threads: int | None = None
    progress: bool = True
    checkpoint_seconds: float = 30.0
    results_dir: str = "results"
    cache_dir: str | None = None

    def check(self) -> None:
        allowed = re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device)
        self.require(bool(allowed), "device", "auto, cpu, cuda or cuda:N")
        self.require(self.threads is None or self.threads >= 1, "threads", "at least 1, or null for torch's choice")
        self.require(0 < self.checkpoint_seconds < math.inf, "checkpoint_seconds", "a number of seconds above 0")

    @property
    def cache(self) -> Path:
        return Path(self.cache_dir) if self.cache_dir else Path(self.results_dir) / "cache"


def run_spec(config: Mapping[str, Any]) -> RunSpec:
    """The run that a composed and resolved config describes.

    Raises:
        ConfigError: a value is not allowed.
    """
    return RunSpec(**{f.name: build(config[f.name], f.name) for f in fields(RunSpec)})


def settings(config: Mapping[str, Any]) -> Settings:
    """The settings in a composed and resolved config."""
    return Settings(**{f.name: config[f.name] for f in fields(Settings)})


def build(node: Any, key: str) -> Any:
    """Make the spec that a node's `_target_` names; mappings without one are made entry by entry, null ones left out.

    Raises:
        ConfigError: the class cannot be imported or is no spec, or a key is not one of its fields.
    """
    if not isinstance(node, Mapping):
        return node
    inner = {name: build(value, f"{key}.{name}") for name, value in node.items() if name != "_target_"}
    if "_target_" not in node:
        return {name: value for name, value in inner.items() if value is not None}
    cls = locate(node["_target_"], key)
    known = [f.name for f in fields(cls)]
    for name in inner:
        if name not in known:
            raise ConfigError(unknown_key(f"{key}.{name}", [f"{key}.{k}" for k in known]))
    return cls(**inner)


@cache
def locate(target: str, key: str) -> type[Spec]:
    """The spec class with the dotted name `target`; modules in the working directory are found too."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    module, _, name = str(target).rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{key}._target_={target} cannot be imported: {error}.") from error
    if not (isinstance(cls, type) and issubclass(cls, Spec)):
        raise ConfigError(f"{key}._target_={target} is not allowed: it must be a frozen dataclass derived from a Spec.")
    return cls


def unknown_key(key: str, known: Iterable[str]) -> str:
    known = sorted(known)
    inside = [k for k in known if k.rpartition(".")[0] == key.rpartition(".")[0]]
    return f"{key} is not a known key{nearest(key, known) or '.'} Known: {', '.join(inside or known)}."


def flat_keys(node: Mapping[str, Any], prefix: str = "") -> list[str]:
    """All dotted keys of a config, those of the nodes themselves included."""
    keys: list[str] = []
    for name, value in node.items():
        keys.append(prefix + name)
        if isinstance(value, Mapping):
            keys += flat_keys(value, f"{prefix}{name}.")
    return keys


# ------------------------------------------------------------------------------------------- what is wrong with it


def explain(error: Exception, config_dir: Path, config_name: str) -> str:
    """What is wrong, in a sentence: ours as they are, Hydra's with the nearest right name."""
    from hydra.errors import MissingConfigException, OverrideParseException

    text = str(error)
    if isinstance(error, ConfigError):
        return text
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        options = sorted(error.options or ())
        return f"{group}={option} is not known{nearest(option, options) or '.'} Known: {', '.join(options)}."
    if isinstance(error, OverrideParseException):
        return f"{error.override} cannot be read: overrides look like key=value; quote what the shell would change."
    if match := re.search(r"Ambiguous value for argument '([^']*)'", text):
        return f"{match[1]} lists several values: add -m to run them all."
    if match := re.search(r"Could not override '([^']*)'", text):
        return unknown_key(match[1], known_keys(config_dir, config_name))
    return " ".join(text.split())


def known_keys(config_dir: Path, config_name: str) -> set[str]:
    """All keys of the default config, and the config groups."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(config_dir), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose(config_name), resolve=False)
    return {key for key in flat_keys(config) if not key.endswith("_target_")}
