"""Composes the configs of a sweep.

Hydra's own sweeper composes every job twice, at some 60 ms each. Here each distinct choice of groups is composed
once and plain values (`lr=0.1`) are put into the result directly. The semantics are Hydra's: the same override grammar,
the same order of jobs, `hydra.sweeper.params` below the command line.
"""

from __future__ import annotations

import copy
import itertools
import logging
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from bnstudy.config.free_keys import as_typed, free_root, with_free_key
from bnstudy.config.messages import flat_keys, unknown_key
from bnstudy.report.terminal import stage
from bnstudy.store.renames import with_present_key
from bnstudy.validation import ConfigError, nearest

logger = logging.getLogger("bnstudy")

Overrides = tuple[str, ...]
LENGTHS = {"epochs", "steps"}

MAX_POINTS = 100_000
"""The most points of a sweep. Planning them takes about two minutes and 4 GB."""

ONE_OPTION = {"model", "norm", "init", "data", "optim", "schedule", "loss", "logger", "scale", "study"}
"""The groups of which a run has one option. Of the group `probe` it may have several."""


@dataclass(frozen=True)
class SweepPoint:
    """One job of a sweep: its overrides, as typed, and the resolved config."""

    overrides: Overrides
    config: dict[str, Any]


def compose_sweep(loader: ConfigLoader, master: DictConfig, arguments: Sequence[str]) -> list[SweepPoint]:
    """Compose all points of a sweep, in Hydra's order: the last key varies fastest.

    master: the config composed from `arguments`, which holds the study and `hydra.sweeper.params`.
    """
    parser = OverridesParser.create(config_loader=loader)
    layers = [*study_overrides(master), master.hydra.sweeper.get("params") or {}]
    typed = [
        [with_free_key(with_present_key(f"{key}={to_typed(value)}")) for key, value in layer.items()]
        for layer in layers
    ]
    below = [parser.parse_overrides(overrides) for overrides in typed]
    choices: dict[str, list[str]] = {}
    above = parser.parse_overrides(list(arguments))
    for overrides in [*below, above]:
        choices = update_choices(choices, overrides)
    of_study = {o.key_or_group for overrides in below[:-1] for o in overrides} - {
        o.key_or_group for overrides in (below[-1], above) for o in overrides
    }
    count = math.prod(map(len, choices.values()))
    if count > MAX_POINTS:
        raise ConfigError(
            f"The sweep has {count} runs, more than {MAX_POINTS}: leave out values, or divide it into several commands "
            "with the same results_dir."
        )
    stage.info(f"Planning {count} runs: composing their settings ...")
    composer = Composer(loader, master)
    return [SweepPoint(point, composer.config(point)) for point in list_points(composer, choices, of_study)]


def list_points(composer: Composer, choices: Mapping[str, list[str]], of_study: Collection[str]) -> list[Overrides]:
    """The overrides of each point, without the keys that its options do not have: those of a swept group, and the
    study's own.

    In `norm=none,batch norm.eps=1e-3` the key is for batch. The sizes that a study gives its networks apply to those
    that have them. Points that become equal are one.

    of_study: the keys that only the study sets.

    Raises:
        ConfigError: no option has a key that the user typed.
    """
    swept = [key for key, lines in choices.items() if len(lines) > 1 and composer.is_group(key)]
    groups = {key: group for key in choices for group in swept if key.startswith(f"{group}.")}
    own = {key: key.partition(".")[0] for key in of_study if "." in key}
    groups |= {key: group for key, group in own.items() if composer.is_group(group)}
    groups = {key: group for key, group in groups.items() if as_typed(choices[key][0]).startswith(key)}  # not + or ~
    points: dict[Overrides, None] = {}
    lacking: dict[str, dict[str, None]] = {}
    known: dict[Overrides, set[str]] = {}
    for values in itertools.product(*choices.values()):
        point = dict(zip(choices, values, strict=True))
        if groups:
            options = tuple(line for key, line in point.items() if key not in groups and composer.is_group(key))
            if options not in known:
                known[options] = flat_keys(composer.options(tuple(v for k, v in point.items() if k not in groups)))
            for key in (key for key in groups if free_root(key) not in known[options]):
                lacking.setdefault(key, {})[point.get(groups[key], f"this {groups[key]}")] = None
                del point[key]
        points[tuple(point.values())] = None
    everything = set().union(*known.values())
    for key in (key for key in lacking if free_root(key) not in everything and key not in of_study):
        raise ConfigError(unknown_key(key, everything))
    for key, without in lacking.items():
        if key in of_study:  # it gives each network its own size
            continue
        have = "has" if len(without) == 1 else "have"
        logger.warning("%s does not apply to %s, which %s no such key.", key, ", ".join(without), have)
    return list(points)


def study_overrides(master: DictConfig) -> list[Mapping[str, Any]]:
    """The overrides of the chosen study, the lowest layer first: its sweep and its grid, then those of its scale."""
    if OmegaConf.select(master, "study") is None:
        return []
    study, scale = master.study, master.scale.name
    if scale not in study.scales:
        known = ", ".join(study.scales) + (nearest(scale, study.scales) or ".")
        raise ConfigError(f"scale={scale} is not allowed with study={study.name}: it must be one of {known}")
    grid = study.get("grid", {})
    return [{**study.sweep, **{key: grid[key] for key in grid if key not in study.sweep}}, study.scales[scale]]


def update_choices(below: Mapping[str, list[str]], overrides: Iterable[Override]) -> dict[str, list[str]]:
    """The choices for each key, with those in `overrides` in place of the ones below.

    The length of a run is one choice with two spellings: `steps` replaces `epochs` below it and vice versa.
    """
    above = {with_package(override): list_values(override) for override in overrides}
    replaced = LENGTHS if LENGTHS & above.keys() else set()
    kept = {key: values for key, values in below.items() if key not in replaced}
    return {**kept, **above}


def with_package(override: Override) -> str:
    """The key of an override. An option of a group in another place, such as `init@init.conv`, is another choice."""
    key: str = override.key_or_group
    return f"{key}@{override.package}" if override.package else key


def to_typed(value: Any) -> str:
    """A value of a YAML file as typed on the command line. A list is a sweep."""
    if isinstance(value, list | ListConfig):
        return ",".join(map(to_typed, value))
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{to_typed_within(inner)}' for key, inner in value.items())}}}"
    return "null" if value is None else str(value)


def to_typed_within(value: Any) -> str:
    """A value inside of a mapping, where a list is a list."""
    return f"[{to_typed(value)}]" if isinstance(value, list | ListConfig) else to_typed(value)


def list_values(override: Override) -> list[str]:
    """List the overrides with one value each that an override, which may be a sweep, stands for."""
    key, line = override.get_key_element(), str(override.input_line)
    check_values(override)
    if not override.is_sweep_override():
        return [line]
    if key in ("study", "scale"):
        raise ConfigError(f"{line} is not allowed: choose one {key} at a time.")
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{line} is not allowed: an interval has no list of values; use choice(...), range(...) or a list, or a "
            "sweeper that samples, such as hydra/sweeper=optuna."
        )
    lines = [f"{key}={value}" for value in override.sweep_string_iterator()]
    if not lines:
        raise ConfigError(f"{line} is not allowed: it lists no values.")
    if len({*lines}) < len(lines):
        logger.warning("%s lists a value twice: it counts once.", line)
    return lines


def check_values(override: Override) -> None:
    """Refuse values before they are listed: a range without end, or a list where a run has one option of a group."""
    key, line = override.key_or_group, override.input_line
    value: Any = override.value()
    if override.is_range_sweep():
        if value.step == 0:
            raise ConfigError(f"{line} is not allowed: its step must not be 0.")
        try:
            fits = (value.stop - value.start) / value.step <= MAX_POINTS  # not for NaN
        except OverflowError:
            fits = False
        if not fits:
            raise ConfigError(f"{line} is not allowed: a sweep has at most {MAX_POINTS} runs.")
    values = value.list if isinstance(value, ChoiceSweep) else [value]
    if key in ONE_OPTION and any(isinstance(v, list) for v in values):  # Hydra would take the last one
        options = ",".join(str(option) for v in values for option in (v if isinstance(v, list) else [v]))
        several = f"-m {key}={options}, without brackets, trains several"
        several = f"study=all 'study.names=[{options}]' trains several" if key == "study" else several
        raise ConfigError(f"{line} is not allowed: a run has one {key}; {several}.")


class Composer:
    """Composes the configs of a sweep, each distinct choice of groups once."""

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._parser = OverridesParser.create(config_loader=loader)
        self._sources = loader.get_sources()
        self.is_group = cache(self._has_options)
        self._compose = cache(partial(_compose, loader, master))
        self._plain_value = cache(self._read_plain_value)

    def config(self, overrides: Overrides) -> dict[str, Any]:
        """Compose and resolve a config, without Hydra's own node. Nodes that configs share are the same objects."""
        plain = [value for value in map(self._plain_value, overrides) if value is not None]
        composed, config, is_resolved = self._compose(self._choices(overrides))
        if not all(has_leaf(config, key) for key, _ in plain):
            return to_plain(self._compose(overrides)[0])
        if not is_resolved:
            changed = copy.deepcopy(composed)
            for key, value in plain:
                OmegaConf.update(changed, key, value)
            return to_plain(changed)
        for key, value in plain:
            config = replace_leaf(config, key.split("."), value)
        return config

    def options(self, overrides: Overrides) -> dict[str, Any]:
        """The config with the chosen options of all groups, before plain values are put into it."""
        return self._compose(self._choices(overrides))[1]

    def _has_options(self, key: str) -> bool:
        """Whether a group of this name has options. Hydra's `get_group_options` does the same, in 12 ms."""
        group = key.partition("@")[0]
        return any(source.is_group(group) and source.list(group, ObjectType.CONFIG) for source in self._sources)

    def _choices(self, overrides: Overrides) -> Overrides:
        return tuple(line for line in overrides if self._plain_value(line) is None)

    def _read_plain_value(self, line: str) -> tuple[str, Any] | None:
        """The key and the value of an override that sets one existing value to another and chooses no config."""
        override = self._parser.parse_override(line)
        changes = not (override.is_add() or override.is_force_add() or override.is_delete() or override.package)
        value = override.value()
        scalar = not isinstance(value, dict | list) and "${" not in str(value)
        is_plain = changes and scalar and not override.is_hydra_override() and not self.is_group(override.key_or_group)
        return (override.key_or_group, value) if is_plain else None


def _compose(loader: ConfigLoader, master: DictConfig, overrides: Overrides) -> tuple[DictConfig, dict[str, Any], bool]:
    """The composed config, the same as plain data with its interpolations unresolved, and whether it has none."""
    config = loader.load_sweep_config(master, list(overrides))
    with open_dict(config):
        del config["hydra"]
    plain = to_plain(config, resolve=False)
    return config, plain, "${" not in str(plain)


def to_plain(config: DictConfig, resolve: bool = True) -> dict[str, Any]:
    """A config as dicts and lists."""
    return OmegaConf.to_container(config, resolve=resolve, throw_on_missing=resolve)  # type: ignore[return-value]


def has_leaf(config: Mapping[str, Any], key: str) -> bool:
    name, _, below = key.partition(".")
    if name not in config or isinstance(config[name], Mapping) != bool(below):
        return False
    return not below or has_leaf(config[name], below)


def replace_leaf(config: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """The config with another value at the path. Nodes beside the path are shared, not copied."""
    name, *below = path
    return {**config, name: replace_leaf(config[name], below, value) if below else value}
