"""From a composed Hydra config to a `RunSpec` and `Settings`, and from what is wrong with it to one clear sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from bnstudy.config.compose import Point
from bnstudy.config.messages import unknown_key
from bnstudy.run import RunSpec
from bnstudy.store.renames import with_present_names
from bnstudy.sweep.request import PlannedRun, Request, naming, varying_names
from bnstudy.sweep.settings import LAUNCHER, Launcher, Settings, StudySpec
from bnstudy.validation import ConfigError, Spec, import_object, show

S = TypeVar("S", bound=Spec)

ALONGSIDE = ("study", "scale")
"""Top-level keys that say why a run is made: no part of it, and no setting."""


_DEFAULTS: Mapping[str, Any] = MappingProxyType({})


def request(points: Sequence[Point], launcher_node: Any = _DEFAULTS) -> Request:
    """What the points of a sweep ask for together.

    launcher_node: the composed `hydra.launcher`.

    Raises:
        ConfigError: a value is not allowed; where there are several points, the sentence names the one.
    """
    shared = {settings(point.config) for point in points}
    if len(shared) > 1:
        raise ConfigError(
            "A sweep runs with one choice of device, engine, results_dir and the like: do not sweep them."
        )
    about = points[0].config
    study = build(about.get("study"), "study")
    if study is not None and not isinstance(study, StudySpec):
        raise ConfigError(
            f"study={study.name} is a sweep of several studies: leave hydra.mode and hydra/sweeper alone."
        )
    work = launcher(launcher_node)
    runs = []
    for point, (name, arm) in zip(points, varying_names([p.overrides for p in points]), strict=True):
        with naming(name):
            runs.append(PlannedRun(run_spec(point.config), name, arm))
    made = shared.pop()
    if made.until is not None and not (study and study.claims):
        without = f"study={study.name}, which bears on no claim" if study else "no study"
        raise ConfigError(
            f"until={made.until} is not allowed with {without}: it adds seeds until a study's claims are decided, such "
            "as those of study=quickstart."
        )
    return Request(made, tuple(runs), study, about["scale"]["name"], work)


def run_spec(config: Mapping[str, Any]) -> RunSpec:
    """The run that a composed and resolved config describes.

    Raises:
        ConfigError: a value is not allowed, or a key is missing or unknown.
    """
    known = {*RunSpec.__dataclass_fields__, *Settings.__dataclass_fields__, *ALONGSIDE}
    for key in config:
        if key not in known:
            raise ConfigError(unknown_key(key, known))
    return make(RunSpec, {name: build(config[name], name) for name in config if name in RunSpec.__dataclass_fields__})


def settings(config: Mapping[str, Any]) -> Settings:
    """The settings in a composed and resolved config."""
    return make(Settings, {name: value for name, value in config.items() if name in Settings.__dataclass_fields__})


def launcher(node: Any) -> Launcher:
    """The launcher that the composed `hydra.launcher` asks for.

    Raises:
        ConfigError: a value is not allowed, a key is unknown, or it is the node of another launcher.
    """
    if not isinstance(node, Mapping):
        raise ConfigError(
            f"hydra.launcher={show(node)} is not allowed: set its keys, such as hydra.launcher.workers=4."
        )
    if is_foreign(node):
        raise ConfigError(
            f"{str(node['_target_']).rpartition('.')[2]} is not allowed as hydra/launcher: bnstudy shares its work out "
            "itself; say how with hydra.launcher.executor, or add hydra/sweeper=basic to have each run launched for "
            "itself."
        )
    values: Any = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node
    return make(Launcher, {key: value for key, value in values.items() if key != "_target_"}, "hydra.launcher.")


def is_foreign(launcher_node: Any) -> bool:
    """Whether a composed `hydra.launcher` is another launcher's."""
    return isinstance(launcher_node, Mapping) and launcher_node.get("_target_", LAUNCHER) != LAUNCHER


def build(node: Any, key: str) -> Any:
    """Make the spec that a node's `_target_` names; mappings without one are made entry by entry, null ones left out.

    Raises:
        ConfigError: the class cannot be imported or is no spec, a key is not one of its fields, or one is missing.
    """
    if not isinstance(node, Mapping):
        return node
    node = with_present_names(node)
    inner = {name: build(value, f"{key}.{name}") for name, value in node.items() if name != "_target_"}
    if "_target_" not in node:
        return {name: value for name, value in inner.items() if value is not None}
    return make(locate(node["_target_"], key), inner, f"{key}.")


def make(cls: type[S], values: Mapping[str, Any], prefix: str = "") -> S:
    """A spec from its values by name; `prefix` is where it stands in the config."""
    known = [f"{prefix}{f.name}" for f in fields(cls)]
    for name in values:
        if f"{prefix}{name}" not in known:
            raise ConfigError(unknown_key(f"{prefix}{name}", known))
    for f in fields(cls):
        if f.name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise ConfigError(f"{prefix}{f.name} is missing: {cls.__name__} has no default for it.")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(with_full_key(str(error), cls, prefix)) from None


def with_full_key(text: str, cls: type[Spec], prefix: str) -> str:
    """What a spec says of one of its fields, which it names by its group, with the key that the field has here."""
    own = f"{cls.group}." if cls.group else ""
    names_one = any(text.startswith((f"{own}{f.name}=", f"{own}{f.name} ")) for f in fields(cls))
    return prefix + text.removeprefix(own) if prefix and names_one else text


@cache
def locate(target: str, key: str) -> type[Spec]:
    """The spec class with the dotted name `target`; modules in the working directory are found too."""
    cls = import_object(str(target), f"{key}._target_={target}")
    if not (isinstance(cls, type) and issubclass(cls, Spec) and "__dataclass_params__" in vars(cls)):
        raise ConfigError(
            f"{key}._target_={target} is not allowed: it must be a class derived from a Spec and decorated with "
            "@dataclass(frozen=True)."
        )
    return cls


# ------------------------------------------------------------------------------------------- what is wrong with it
