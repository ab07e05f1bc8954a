"""Runs of a store that agree with key=value words: `norm=batch lr=0.1,0.2 study=quickstart status=diverged`.

Only `config.yaml` is read of each run, and `summary.json` where a word asks for what is in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bnstudy.commands.settings import GROUPS, MISSING, Options, merge, same, typed
from bnstudy.config.messages import unknown_key
from bnstudy.store.activity import find_workers
from bnstudy.store.flat import SpecColumns, spec_columns, summary_columns
from bnstudy.store.integrity import DamagedRun
from bnstudy.store.outcomes import describe_status
from bnstudy.store.plans import Plans
from bnstudy.store.runs import Store
from bnstudy.validation import ConfigError, nearest

STATUSES = ("finished", "did not learn", "diverged", "unfinished", "running", "failed", "damaged")
OWN_KEYS = ("study", "scale", "status")
LABELS = (*GROUPS, "probe")
"""Keys whose values are names of classes or of options."""

_RANGE = re.compile(r"(range|interval)\(([^(),]+),([^(),]+)\)")
_SEPARATOR = re.compile(r",(?![^(\[{]*[)\]}])")
"""A comma outside of brackets."""


@dataclass
class Selection:
    """The runs that agree with all words.

    run_ids: sorted. specs: of those whose config.yaml is intact. damages: a sentence for each other one that was read.
    """

    store: Store
    options: Options
    run_ids: list[str] = field(default_factory=list)
    specs: dict[str, dict[str, Any]] = field(default_factory=dict)
    damages: dict[str, str] = field(default_factory=dict)
    _columns: SpecColumns = field(default_factory=SpecColumns)

    def columns(self, spec: Mapping[str, Any], key: str) -> dict[str, Any]:
        """The columns of one entry of a spec, which runs of a sweep share."""
        node = spec[key]
        return self._columns.of(key, node) if isinstance(node, Mapping) else {key: node}


def select(store: Store, options: Options, words: Mapping[str, str], among: Iterable[str] | None = None) -> Selection:
    """The runs that agree with all words, of all runs or of those `among` them.

    Raises:
        ConfigError: a key is unknown, or no study, scale or status has the name.
    """
    found = Selection(store, options)
    ids = planned_ids(store, words, store.run_ids() if among is None else sorted(among))
    for run_id in ids:
        try:
            found.specs[run_id] = store.config(run_id)
        except DamagedRun as damage:
            found.damages[run_id] = str(damage)
    of_spec = {key: text for key, text in words.items() if key not in OWN_KEYS}
    found.run_ids = [run_id for run_id in ids if run_id in found.specs or not of_spec]
    known = spec_keys(found)
    for key in (key for key in of_spec if key in known):
        accepts = acceptor(found, key, of_spec[key])
        found.run_ids = [run_id for run_id in found.run_ids if accepts(found.specs[run_id])]
    if of_summary := {key: text for key, text in of_spec.items() if key not in known}:
        keep_by_summary(found, of_summary, known)
    if "status" in words:
        wanted = statuses(words["status"])
        state = states(store, found.run_ids, found.damages)
        found.run_ids = [run_id for run_id in found.run_ids if state[run_id] in wanted]
    return found


def planned_ids(store: Store, words: Mapping[str, str], ids: Sequence[str]) -> list[str]:
    """Those of the runs that are planned by the studies that `study` and `scale` name; all without these words."""
    if not {"study", "scale"} & words.keys():
        return list(ids)
    wanted = {run_id for plan in find_plans(store, words) for run_id in plan["run_ids"]}
    return [run_id for run_id in ids if run_id in wanted]


def find_plans(store: Store, words: Mapping[str, str]) -> list[dict[str, Any]]:
    """The plans of the studies and scales that the words name, all without such words.

    Raises:
        ConfigError: the store has no plan of that name, but several variants or none.
    """
    plans = Plans(store.results_dir)
    found = [plan for study in plans.studies() for plan in plans.load(study)]
    for key, of in (("study", "name"), ("scale", "scale")):
        if key not in words:
            continue
        known, names = sorted({plan[of] for plan in found}), words[key].split(",")
        names = [plans.find(name) for name in names] if key == "study" else names
        for name in (name for name in names if name not in known):
            hint = nearest(name, known) or "."
            there = f" Known: {', '.join(known)}." if known else ""
            raise ConfigError(f"{key}={name} is not planned in {store.results_dir}{hint}{there}")
        found = [plan for plan in found if plan[of] in names]
    return found


def statuses(text: str) -> set[str]:
    names = {name.strip().replace("_", " ") for name in text.split(",")}
    for name in names:
        if name not in STATUSES:
            raise ConfigError(
                f"status={name} is not allowed: it must be one of {', '.join(STATUSES)}{nearest(name, STATUSES) or '.'}"
            )
    return names


def states(store: Store, ids: Sequence[str], damages: dict[str, str]) -> dict[str, str]:
    """What became of each run, one of STATUSES. Sentences about summaries that are damaged are added to `damages`."""
    unfinished = [run_id for run_id in ids if not store.is_finished(run_id)]
    running = {r for worker in find_workers(store, unfinished) if not worker.is_stale for r in worker.run_ids}
    state = {}
    for run_id in ids:
        if run_id in damages:
            state[run_id] = "damaged"
        elif store.is_finished(run_id):
            try:
                state[run_id] = describe_status(store.summary(run_id))
            except DamagedRun as damage:
                damages[run_id], state[run_id] = str(damage), "damaged"
        elif run_id in running:
            state[run_id] = "running"
        else:
            state[run_id] = "failed" if store.run(run_id).error.exists() else "unfinished"
    return state


def spec_keys(found: Selection) -> set[str]:
    """The columns that the specs of any run have."""
    known: set[str] = set()
    seen = set()
    for spec in found.specs.values():
        for key, node in spec.items():
            mark = key, id(node) if isinstance(node, Mapping) else None
            if mark not in seen:
                seen.add(mark)
                known |= found.columns(spec, key).keys()
    return known


def keep_by_summary(found: Selection, words: Mapping[str, str], known: Iterable[str]) -> None:
    """Keep the finished runs whose summaries agree. Raises ConfigError if no summary has a key."""
    accepts = {key: value_acceptor(key, text) for key, text in words.items()}
    keys: set[str] = set()
    kept = []
    for run_id in filter(found.store.is_finished, found.run_ids):
        try:
            columns = summary_columns(found.store.summary(run_id))
        except DamagedRun as damage:
            found.damages[run_id] = str(damage)
            continue
        keys |= columns.keys()
        if all(key in columns and accept(columns[key]) for key, accept in accepts.items()):
            kept.append(run_id)
    for key in words:
        if key not in keys and (keys or found.specs):
            raise ConfigError(unknown_key(key, {*known, *keys, *OWN_KEYS}))
    found.run_ids = kept


Accepts = Callable[[Any], bool]


def acceptor(found: Selection, key: str, text: str) -> Accepts:
    """Whether a spec has one of the values in the text: `0.1,0.2`, `range(0,5)`, or a name as `batch` or `BatchNorm`.

    Raises:
        ConfigError: no run and no option has a name.
    """
    top = key.partition(".")[0]
    if key in LABELS:
        names = [name.strip() for name in text.split(",")]
        _check_names(found, key, names)
        accepts: Accepts = lambda node: any(has_name(found.options, key, node, name) for name in names)  # noqa: E731
    else:
        of_value = value_acceptor(key, text)
        accepts = lambda node: of_value(_column(found, top, node, key))  # noqa: E731
    kept: dict[int, bool] = {}

    def accepts_spec(spec: Mapping[str, Any]) -> bool:
        if top not in spec:
            return False
        if not isinstance(spec[top], Mapping):
            return accepts(spec[top])
        return kept[id(spec[top])] if id(spec[top]) in kept else kept.setdefault(id(spec[top]), accepts(spec[top]))

    return accepts_spec


def _column(found: Selection, top: str, node: Any, key: str) -> Any:
    return found.columns({top: node}, top).get(key, MISSING)


def has_name(options: Options, key: str, node: Any, name: str) -> bool:
    """Whether a part of a spec is called by this name of its class or of an option, whatever its other fields."""
    if spec_columns({key: node})[key].lower() == name.lower():
        return True
    option = options.nodes(key).get(name)
    if option is None:
        return False
    if key == "probe":
        return {*option} == {*node}
    own = options.own_keys(key, name)
    return bool(option["_target_"] == node["_target_"]) and same(merge(node, own), node)


def _check_names(found: Selection, key: str, names: Sequence[str]) -> None:
    labels = {id(spec[key]): spec_columns({key: spec[key]})[key] for spec in found.specs.values() if key in spec}
    known = sorted({*labels.values(), *found.options.nodes(key)})
    for name in names:
        if name.lower() not in (word.lower() for word in known):
            raise ConfigError(f"{key}={name} is not known{nearest(name, known) or '.'} Known: {', '.join(known)}.")


def value_acceptor(key: str, text: str) -> Accepts:
    """Whether a value is one of those in the text."""
    choices = [_choice(key, part.strip()) for part in _SEPARATOR.split(text)]
    return lambda value: value is not MISSING and any(choice(value) for choice in choices)


def _choice(key: str, text: str) -> Accepts:
    if match := _RANGE.fullmatch(text):
        try:
            low, high = float(match[2]), float(match[3])
        except ValueError:
            raise ConfigError(
                f"{key}={text} is not allowed: it must have two numbers, such as {match[1]}(0,5)."
            ) from None
        if match[1] == "range":
            return lambda value: _is_number(value) and low <= value < high and float(value).is_integer()
        return lambda value: _is_number(value) and low <= value <= high

    def is_equal(value: Any) -> bool:
        if _is_number(value):
            return same(float(value), text)
        if isinstance(value, str):
            return value.lower() == text.lower()
        return typed(value).replace(" ", "") == text.replace(" ", "")

    return is_equal


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
