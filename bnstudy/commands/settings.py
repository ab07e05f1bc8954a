"""The settings of a run as words of a command line: what differs from the defaults of conf/.

Files are read as plain YAML. Hydra would import the plugins and with them torch, and take a second for all options.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import yaml

from bnstudy.config.free_keys import FREE
from bnstudy.store.files import conf_dir
from bnstudy.store.renames import with_present_names
from bnstudy.store.runs import Loader

GROUPS = ("model", "norm", "init", "data", "optim", "schedule", "loss")
ORDER = (*GROUPS, "probe", "evaluation", "lr", "batch_size", "epochs", "steps", "seed", "precision", "trained")
_PLAIN = re.compile(r"[A-Za-z_][\w./:+-]*")
"""Texts that Hydra reads without quotes."""

Words = dict[str, str]
"""The value of each key that differs from the defaults, as typed; without one for a key that is left out."""


@dataclass(frozen=True)
class Options:
    """The options of the groups in conf/ and the user's folders, which come first."""

    folders: tuple[Path, ...] = ()
    _nodes: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    _kept: dict[tuple[str, int], tuple[Any, Words]] = field(default_factory=dict)

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """The content of conf/config.yaml, with the name of the default option of each group."""
        content = read_yaml(conf_dir() / "config.yaml")
        names = [entry for entry in content["defaults"] if isinstance(entry, dict)]
        return with_present_names({**content, **{key: name for entry in names for key, name in entry.items()}})

    def names(self, group: str) -> list[str]:
        """The names of a group's options, the default one first."""
        found: dict[str, None] = {}
        for folder in (conf_dir(), *self.folders):
            paths = [*sorted((folder / group).glob("*.yaml")), *sorted((folder / group).glob("*/*.yaml"))]
            found |= {str(path.relative_to(folder / group).with_suffix("")): None for path in paths}
        return sorted(found, key=lambda name: name != self.defaults.get(group))

    def nodes(self, group: str) -> dict[str, dict[str, Any]]:
        """The options of a group by name. Those that cannot be read are left out: Hydra names them when it does."""
        if group not in self._nodes:
            self._nodes[group] = {}
            for name in self.names(group):
                with suppress(OSError, ValueError, yaml.YAMLError, RecursionError, TypeError, AttributeError):
                    self._nodes[group][name] = with_present_names(self._compose(group, name))
        return self._nodes[group]

    def own_keys(self, group: str, name: str) -> dict[str, Any]:
        """What an option changes of another that it is based on: `{width: 32}` of small/mlp."""
        content = self._read(group, name)
        own = {key: value for key, value in content.items() if key not in ("defaults", "_target_")}
        return own if "defaults" in content else {}

    def _read(self, group: str, name: str) -> dict[str, Any]:
        paths = [folder / group / f"{name}.yaml" for folder in (*self.folders, conf_dir())]
        return read_yaml(next(path for path in paths if path.is_file()))

    def _compose(self, group: str, name: str) -> dict[str, Any]:
        """An option with those in its defaults list, in Hydra's order: its own keys last, unless _self_ says where."""
        content = self._read(group, name)
        parts = content.pop("defaults", [])
        node: dict[str, Any] = {}
        for part in parts if "_self_" in parts else [*parts, "_self_"]:
            if part == "_self_":
                node = merge(node, content)
            elif isinstance(part, str):  # name, /group/name@_here_
                other = part.partition("@")[0].removeprefix(f"/{group}/")
                node = merge(node, self._compose(group, other))
            else:  # /init@conv: kaiming_normal
                ((key, other),) = part.items()
                node = merge(node, {key.partition("@")[2]: self._compose(group, other)})
        return node

    def option(self, group: str, node: Mapping[str, Any]) -> tuple[str | None, Words]:
        """The option that comes nearest to a node, and what differs from it; None if no option has its class."""
        same = {name: of for name, of in self.nodes(group).items() if of.get("_target_") == node.get("_target_")}
        if not same:
            return None, {}
        choices = {name: dict(differences(of, node, group)) for name, of in same.items()}
        name = min(choices, key=lambda name: len(choices[name]))
        return name, choices[name]

    def words(self, spec: Mapping[str, Any]) -> Words:
        """What differs from the defaults, the groups first; without keys that earlier versions lack."""
        words: Words = {}
        for key in ORDER:
            is_node = isinstance(spec.get(key), Mapping)
            if is_node and (key in GROUPS or key == "probe"):
                if (key, id(spec[key])) not in self._kept:  # the runs of a sweep share most nodes
                    make = self._probe_words if key == "probe" else partial(self._group_words, key)
                    self._kept[key, id(spec[key])] = spec[key], make(spec[key])
                words |= self._kept[key, id(spec[key])][1]
            elif is_node and key == "evaluation":
                words |= dict(differences(self.defaults[key], without_derived(spec), key))
            elif key in spec and key not in GROUPS and spec[key] != self.defaults[key]:
                words[key] = typed(spec[key])
        if isinstance(spec.get("early_stopping"), Mapping):
            words |= dict(differences(self.defaults["early_stopping"], spec["early_stopping"], "early_stopping"))
        return words

    def _group_words(self, group: str, node: Mapping[str, Any]) -> Words:
        name, words = self.option(group, node)
        if name is None:  # a class of the user's without an option
            return {f"~{group}": "", f"+{group}": typed(node)}
        return words if name == self.defaults[group] else {group: name, **words}

    def _probe_words(self, node: Mapping[str, Any]) -> Words:
        """Of one preset, or of two together."""
        presets = self.nodes("probe")
        pairs = itertools.permutations(presets, 2)
        singles: list[tuple[str, ...]] = [(name,) for name in presets]
        best: tuple[str, ...] = ()
        words: Words = {}
        for names in [*singles, *pairs]:
            of: dict[str, Any] = {}
            for name in names:
                of = merge(of, presets[name])
            found = dict(differences(of, node, "probe"))
            if not best or len(found) + len(names) < len(words) + len(best):
                best, words = names, found
        if best == (self.defaults["probe"],):
            return words
        return {"probe": best[0] if len(best) == 1 else f"[{','.join(best)}]", **words}

    def default(self, words: Words, key: str) -> str:
        """The default of a key, with the options that the words choose; - if it has none."""
        top, *below = key.lstrip("+~").split(".")
        if top not in self._chosen(words):
            value = self.defaults.get(top)
        elif not below:
            return str(self.defaults[top])
        else:
            value = self._chosen(words)[top]
        for name in below:
            value = value.get(name, MISSING) if isinstance(value, Mapping) else MISSING
        return "-" if value is MISSING else typed(value)

    def _chosen(self, words: Words) -> dict[str, Any]:
        chosen: dict[str, Any] = {}
        for group in (*GROUPS, "probe"):
            name = words.get(group, self.defaults[group])
            chosen[group] = {}
            for part in name.strip("[]").split(","):
                chosen[group] = merge(chosen[group], self.nodes(group).get(part, {}))
        return chosen


MISSING = object()
"""In place of the value of a key that is not there: null is a value."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Raises ValueError if the file is no mapping."""
    text = path.read_text(encoding="utf-8")
    content = yaml.load(text, Loader)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no mapping")
    return content


def merge(below: Any, above: Any) -> Any:
    """A mapping with another on top, as Hydra merges two nodes."""
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    return {**below, **{key: merge(below.get(key), value) for key, value in above.items()}}


def without_derived(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The node `evaluation` without the batch size that follows from that of training."""
    own = dict(spec["evaluation"])
    if own.get("batch_size") == spec.get("batch_size"):
        del own["batch_size"]
    return own


def differences(default: Mapping[str, Any], node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """The words that make a node of the default one.

    A field that the node lacks has no part in the run's identity, or no effect there: it keeps its default.
    """
    for key, value in node.items():
        name, before = f"{prefix}.{key}", default.get(key)
        if same(value, before):
            continue
        if not (isinstance(value, Mapping) and isinstance(before, Mapping)):
            is_free = name.startswith(f"{FREE}.")
            added = key not in default and not is_free
            yield f"{'+' if added else ''}{name}", typed(value, exact=added or is_free)
        elif value.get("_target_") != before.get("_target_"):
            yield f"~{name}", ""
            yield f"+{name}", typed(value)
        else:
            yield from differences(before, value, name)
    if prefix == "probe":
        yield from ((f"probe.{name}", "null") for name in default if name not in node)


def same(value: Any, other: Any) -> bool:
    """Whether values are equal for a run: 1 and 1.0 are, and so are numbers that YAML reads as texts, such as 1e-5."""
    if isinstance(value, Mapping) or isinstance(other, Mapping):
        keys = (value.keys(), other.keys()) if isinstance(value, Mapping) and isinstance(other, Mapping) else None
        return keys is not None and keys[0] == keys[1] and all(same(value[key], other[key]) for key in value)
    if isinstance(value, Sequence) and isinstance(other, Sequence) and not isinstance(value, str):
        return len(value) == len(other) and all(map(same, value, other))
    if isinstance(value, float) and isinstance(other, str):
        with suppress(ValueError):
            return value == float(other)
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def typed(value: Any, exact: bool = False) -> str:
    """A value as Hydra's grammar reads it, with all digits.

    exact: 1.0 stays 1.0. A field that is a number takes 1 for it, but an argument of a class of the user's may differ.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {typed(of, exact=True)}' for key, of in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(typed(of, exact) for of in value)}]"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e6 and not exact else repr(value)
    if not isinstance(value, str):
        return str(value)
    if _PLAIN.fullmatch(value) and value.lower() not in ("null", "true", "false", "nan", "inf"):
        return value
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    return f"'{escaped}'"


def command_words(words: Mapping[str, str]) -> list[str]:
    """The words of a command line, before the shell's quotes."""
    return [f"{key}={value}" if value or not key.startswith("~") else key for key, value in words.items()]


def in_order(keys: Iterable[str]) -> list[str]:
    """Keys of words, the groups first; the order within a group is kept."""
    tops = {key: key.lstrip("+~").partition(".")[0] for key in keys}
    return sorted(tops, key=lambda key: ORDER.index(tops[key]) if tops[key] in ORDER else len(ORDER))
