"""From a composed Hydra config to specs: runs, settings, the launcher, and the request that holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from bnstudy.config.compose import SweepPoint
from bnstudy.config.free_keys import FREE, as_typed
from bnstudy.config.messages import unknown_key
from bnstudy.config.variants import as_variant
from bnstudy.report.terminal import stage
from bnstudy.run import RunSpec
from bnstudy.store.renames import with_present_names
from bnstudy.sweep.request import PlannedRun, Request, naming, varying_names
from bnstudy.sweep.settings import LAUNCHER, Launcher, Settings, StudySpec
from bnstudy.validation import ConfigError, Spec, import_object, show

S = TypeVar("S", bound=Spec)


def build_request(
    points: Sequence[SweepPoint], launcher_node: Any = MappingProxyType({}), arguments: Sequence[str] = ()
) -> Request:
    """Build the request for all points of a sweep. The error for a value that is not allowed names the point.

    launcher_node: the composed `hydra.launcher`.
    arguments: those of the command line, as typed.
    """
    configs = {repr(settings_in(point.config)): point.config for point in points}
    settings, *others = {build_settings(config) for config in configs.values()}
    if others:
        raise ConfigError(describe_swept([point.config for point in points]))
    config = points[0].config
    study = build_spec(config.get("study"), "study")
    if study is not None and not isinstance(study, StudySpec):
        raise ConfigError(
            f"study={study.name} is a sweep of several studies: leave hydra.mode and hydra/sweeper as they are."
        )
    launcher = build_launcher(launcher_node)
    runs: list[PlannedRun] = []
    built: Built = {}
    stage.info(f"Planning {len(points)} runs: checking their settings ...")
    for point, (name, arm) in zip(points, varying_names([[*map(as_typed, p.overrides)] for p in points]), strict=True):
        with naming(name):
            runs.append(PlannedRun(build_run_spec(point.config, built), name, arm))
    if settings.until is not None and not (study and study.claims):
        without = f"study={study.name}, which has no claims" if study else "no study"
        raise ConfigError(
            f"until={settings.until} is not allowed with {without}: it adds seeds until a study's claims are decided, "
            "such as those of study=quickstart."
        )
    scale = config["scale"]["name"]
    if study is None:
        return Request(settings, tuple(runs), None, scale, launcher, arguments=tuple(arguments))
    own = as_variant(study, arguments)
    variant_of = study.name if own != study else ""
    return Request(settings, tuple(runs), own, scale, launcher, arguments=tuple(arguments), variant_of=variant_of)


def describe_swept(configs: Sequence[Mapping[str, Any]]) -> str:
    """The sentence about the settings in which the points of a sweep differ."""
    first, *others = map(settings_in, configs)
    keys = [key for key in first if any(other.get(key) != first[key] for other in others)]
    several = (
        " To have the metrics in several tools, train with one logger; then bnstudy export NAME sends them to another."
    )
    return f"{' and '.join(keys)} cannot be swept: all runs of a sweep share its value.{several * ('logger' in keys)}"


KNOWN = {*RunSpec.__dataclass_fields__, *Settings.__dataclass_fields__, "study", "scale"}


Built = dict[tuple[str, int], tuple[Any, Any]]
"""Nodes, and what was built of them, by key and id. The nodes are kept, so that no other gets their ids."""


def build_run_spec(config: Mapping[str, Any], built: Built | None = None) -> RunSpec:
    """Build the run that a composed and resolved config describes.

    built: collects the nodes, most of which the configs of a sweep share.
    """
    for key in config:
        if key not in KNOWN:
            raise ConfigError(unknown_key(key, KNOWN))
    built = {} if built is None else built
    values = {}
    for name, node in config.items():
        if name in RunSpec.__dataclass_fields__:
            if (name, id(node)) not in built:
                built[name, id(node)] = node, build_spec(node, name)
            values[name] = built[name, id(node)][1]
    return make_spec(RunSpec, values)


def build_settings(config: Mapping[str, Any]) -> Settings:
    """Build the settings in a composed and resolved config."""
    values = settings_in(config)
    logger = build_spec(values.get("logger") or None, "logger")
    return make_spec(Settings, {**values, "logger": logger})


def settings_in(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name in Settings.__dataclass_fields__}


def build_launcher(node: Any) -> Launcher:
    """Build the launcher that the composed `hydra.launcher` describes."""
    if not isinstance(node, Mapping):
        given = f"hydra.launcher={show(node)}"
        raise ConfigError(f"{given} is not allowed: set its keys, such as hydra.launcher.workers=4.")
    if is_foreign(node):
        raise ConfigError(
            f"{str(node['_target_']).rpartition('.')[2]} is not allowed as hydra/launcher: bnstudy distributes its "
            "work itself; choose how by hydra.launcher.executor, or add hydra/sweeper=basic to have each run launched "
            "by itself."
        )
    values: Any = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node
    return make_spec(Launcher, {key: value for key, value in values.items() if key != "_target_"}, "hydra.launcher.")


def is_foreign(launcher_node: Any) -> bool:
    """Whether a composed `hydra.launcher` is another launcher's."""
    return isinstance(launcher_node, Mapping) and launcher_node.get("_target_", LAUNCHER) != LAUNCHER


def build_spec(node: Any, key: str) -> Any:
    """Build the spec that a node's `_target_` names. A mapping without one stays a mapping, less its null entries."""
    if not isinstance(node, Mapping) or key == FREE:
        return node
    node = with_present_names(node)
    inner = {name: build_spec(value, f"{key}.{name}") for name, value in node.items() if name != "_target_"}
    if "_target_" not in node:
        return {name: value for name, value in inner.items() if value is not None}
    return make_spec(import_spec(node["_target_"], key), inner, f"{key}.")


def make_spec(cls: type[S], values: Mapping[str, Any], prefix: str = "") -> S:
    """Make a spec from its values. In messages `prefix` stands before its keys."""
    known = [f"{prefix}{f.name}" for f in fields(cls)]
    for name in values:
        if f"{prefix}{name}" not in known:
            raise ConfigError(unknown_key(f"{prefix}{name}", known))
    for f in fields(cls):
        if f.name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise ConfigError(f"{prefix}{f.name} is missing: {cls.__name__} has no default for it.")
    try:
        made = cls(**values)
    except ConfigError as error:
        # A spec's message names a field by the spec's group; the full key replaces this.
        message, own = str(error), f"{cls.group}." if cls.group else ""
        names_field = any(message.startswith((f"{own}{f.name}=", f"{own}{f.name} ")) for f in fields(cls))
        raise ConfigError(prefix + message.removeprefix(own) if prefix and names_field else message) from None
    for name in (name for name, value in values.items() if value == ""):
        raise ConfigError(f"{prefix}{name}= is not allowed: it has no value.")
    return made


@cache
def import_spec(target: str, key: str) -> type[Spec]:
    """Import the spec class with the dotted name `target`, also from modules in the working directory."""
    cls = import_object(str(target), f"{key}._target_={target}")
    if not (isinstance(cls, type) and issubclass(cls, Spec) and "__dataclass_params__" in vars(cls)):
        raise ConfigError(
            f"{key}._target_={target} is not allowed: it must be a class derived from a Spec and decorated with "
            "@dataclass(frozen=True)."
        )
    return cls
