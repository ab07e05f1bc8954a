"""From a composed Hydra config to a `RunSpec` and `Settings`, and from what is wrong with it to one clear sentence."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from bnstudy.files import conf_dir as conf_dir
from bnstudy.launch.request import Launcher, PlannedRun, Request, Settings, Study, naming, varying_names
from bnstudy.spec import ConfigError, RunSpec, Spec, closest, nearest, show

if TYPE_CHECKING:
    from bnstudy.launch.points import Point

S = TypeVar("S", bound=Spec)

_PACKAGE = Path(__file__).parent

ALONGSIDE = ("study", "scale")
"""Top-level keys that say why a run is made: no part of it, and no setting."""


def report_conf_dir() -> Path:
    """Where the report's config is: apart, since its `study` names one that was run and is no config group."""
    return _PACKAGE / "analysis" / "conf"


LAUNCHER = "hydra_plugins.bnstudy_launcher.BnstudyLauncher"


_DEFAULTS: Mapping[str, Any] = MappingProxyType({})


def request(points: Sequence[Point], launcher_node: Any = _DEFAULTS, fixed: Collection[str] | None = None) -> Request:
    """What the points of a sweep ask for together.

    launcher_node: the composed `hydra.launcher`.
    fixed: for a part of a sweep, the overrides in which its points do not differ from the others.

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
    if study is not None and not isinstance(study, Study):
        raise ConfigError(
            f"study={study.name} is a sweep of several studies: leave hydra.mode and hydra/sweeper alone."
        )
    work = launcher(launcher_node)
    runs = []
    for point, (name, arm) in zip(points, varying_names([p.overrides for p in points], fixed), strict=True):
        with naming(name):
            runs.append(PlannedRun(run_spec(point.config), name, arm))
    made = shared.pop()
    if made.until is not None and not (study and study.claims):
        without = f"study={study.name}, which bears on no claim" if study else "no study"
        raise ConfigError(
            f"until={made.until} is not allowed with {without}: it adds seeds until a study's claims are decided, such "
            "as those of study=quickstart."
        )
    return Request(made, tuple(runs), study, about["scale"]["name"], work, part=fixed is not None)


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
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    module, _, name = str(target).rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except Exception as error:  # importing runs code of the user's, which can fail in any way
        where = f"; looked for in {os.getcwd()} and the installed packages" if isinstance(error, ImportError) else ""
        raise ConfigError(f"{key}._target_={target} cannot be imported: {error}{where}.") from error
    if not (isinstance(cls, type) and issubclass(cls, Spec) and "__dataclass_params__" in vars(cls)):
        raise ConfigError(
            f"{key}._target_={target} is not allowed: it must be a class derived from a Spec and decorated with "
            "@dataclass(frozen=True)."
        )
    return cls


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


# ------------------------------------------------------------------------------------------- what is wrong with it


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
