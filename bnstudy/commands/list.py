"""`bnstudy list`: the studies and claims, and what of them is in the store; `--runs`: the runs themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from bnstudy.commands.arguments import Arguments, indented, read_arguments, say
from bnstudy.commands.selection import Selection, select, states
from bnstudy.commands.settings import command_words, in_order, read_yaml, typed
from bnstudy.report.terminal import align
from bnstudy.store.files import conf_dir
from bnstudy.store.integrity import DamagedRun
from bnstudy.store.outcomes import counted_accuracy
from bnstudy.store.plans import Plans
from bnstudy.sweep.messages import plural
from bnstudy.sweep.progress import percent
from bnstudy.validation import ConfigError

HELP = """The studies and claims, and how many of their runs are in the store.

bnstudy list                                 studies and claims
bnstudy list --runs                          the runs in the store
bnstudy list --runs norm=batch lr=0.1,0.2    those with these settings
bnstudy list --runs study=quickstart status=diverged
bnstudy list --runs 'seed=range(0,5)' 'lr=interval(0.01,1)' engine=serial

A key is a setting of a run such as model.width, a column of load_runs, or one
of study, scale and status (finished, did_not_learn, diverged, unfinished,
running, failed, damaged).
"""
FLAGS = {"runs": "list the runs in the store", "all": "with --runs: all of them, however many"}

MOST_RUNS = 100
"""So many runs are shown without --all."""
MOST_COLUMNS = 5
"""If the runs differ in more settings than these, they stand in one column."""


def run(arguments: Sequence[str]) -> int:
    what = {"runs": ["--runs"], "studies": [], "claims": []}
    if arguments and arguments[0] in what:
        arguments = [*what[arguments[0]], *arguments[1:]]
    if "--runs" not in arguments and (word := next(filter(is_filter, arguments), None)):
        raise ConfigError(f"{word} chooses runs: write bnstudy list --runs {word}.")
    keys = None if "--runs" in arguments else ()
    given = read_arguments("list", HELP, arguments, FLAGS, keys=keys, takes_settings=True, needs_store=False)
    if given.flags.runs:
        return list_runs(given)
    if given.flags.all:
        raise ConfigError("--all is not allowed without --runs: add --runs.")
    list_studies(given)
    return 0


def is_filter(word: str) -> bool:
    return "=" in word and not word.startswith(("-", "results_dir="))


def list_studies(given: Arguments) -> None:
    store, stored = given.store, Plans(given.store.results_dir)
    folders = (*given.options.folders, conf_dir())
    finished = set(store.finished())
    planned = {study: stored.load(study) for study in stored.studies()}
    studies = dict(read_entries(folders, "study", "title"))
    say("Studies, trained by bnstudy study=NAME:\n")
    own = {name: plans[0]["title"] for name, plans in planned.items() if plans and name not in studies}
    for name, title in [*studies.items(), *own.items()]:
        origin = planned[name][0].get("variant_of") if name not in studies else None
        where = f"a variant of {origin}" if origin else f"only planned in {store.results_dir}"
        say(f"  {name}" + ("" if name in studies else f"   ({where})"))
        say(indented(title, 6))
        for plan in planned.get(name, ()):
            count = sum(run_id in finished for run_id in plan["run_ids"])
            say(f"      scale={plan['scale']}: {count} of {plural(len(plan['run_ids']), 'run')} finished")
    say("\nClaims, judged by bnstudy-report:\n")
    for name, statement in read_entries(folders, "claim", "statement"):
        say(f"  {name}")
        say(indented(statement, 6))
    begun = len(store.run_ids())
    say(
        f"\n{store.results_dir} has {plural(begun, 'run')}, {len(finished)} of them finished."
        if begun
        else f"\nThere are no runs in {store.results_dir} yet."
    )


def read_entries(folders: Sequence[Path], group: str, key: str) -> Iterator[tuple[str, str]]:
    """The name and one text of each study or claim, the first folder's file of a name."""
    paths = {path.stem: path for folder in reversed(folders) for path in (folder / group).glob("*.yaml")}
    for name, path in sorted(paths.items()):
        try:
            content = read_yaml(path)
        except (OSError, ValueError, yaml.YAMLError, RecursionError):
            yield name, f"{path} cannot be read."
            continue
        inner = content.get(group)
        text = content.get(key, inner.get(key) if isinstance(inner, Mapping) else None)
        yield name, text if isinstance(text, str) else "All of the studies."


def list_runs(given: Arguments) -> int:
    store = given.store
    if not store.results_dir.is_dir():
        raise ConfigError(f"results_dir={store.results_dir} is not allowed: there is no such folder.")
    found = select(store, given.options, given.values)
    if not found.run_ids:
        say(f"No run in {store.results_dir} is like this." if given.values else f"{store.results_dir} has no runs yet.")
        return 0
    ordered = sorted(found.run_ids, key=lambda run_id: order(found, run_id))
    shown = ordered if given.flags.all else ordered[:MOST_RUNS]
    say(table(found, shown, len(ordered)))
    if len(shown) < len(ordered):
        say("--all shows all, key=value chooses (bnstudy list --help).")
    damaged = [found.damages[run_id] for run_id in shown if run_id in found.damages]
    for sentence in damaged:
        say(sentence)
    return 0


def order(found: Selection, run_id: str) -> tuple[Any, ...]:
    """By dataset, network, norm, learning rate and seed; damaged ones last."""
    spec = found.specs.get(run_id)
    if spec is None:
        return (1, run_id)
    labels = [str(found.columns(spec, key)[key]) if key in spec else "" for key in ("data", "model", "norm")]
    numbers = [spec[key] if isinstance(spec.get(key), int | float) else 0 for key in ("lr", "seed")]
    return (0, *labels, *numbers, run_id)


def table(found: Selection, shown: Sequence[str], count: int) -> str:
    """A line with the number of runs, of which not all may be shown, and what these share, and a row each with the
    settings in which they differ."""
    words = {run_id: found.options.words(found.specs[run_id]) for run_id in shown if run_id in found.specs}
    keys = in_order(dict.fromkeys(key for of_run in words.values() for key in of_run))
    differ = [key for key in keys if len({of_run.get(key) for of_run in words.values()}) > 1]
    shared = {key: next(iter(words.values()))[key] for key in keys if key not in differ}
    state = states(found.store, shown, found.damages)
    rows = []
    for run_id in shown:
        own = words.get(run_id)
        if own is None:
            cells = ["-"] * min(len(differ), MOST_COLUMNS)
        elif len(differ) <= MOST_COLUMNS:
            cells = [own.get(key) or default(found, run_id, key) for key in differ]
        else:
            values = {key: own.get(key) or default(found, run_id, key) for key in differ}
            cells = [" ".join(command_words({key: value for key, value in values.items() if value != "-"}))]
        rows.append([run_id, state[run_id], accuracy(found, run_id), *cells])
    head = ["run", "status", "test acc", *(differ if len(differ) <= MOST_COLUMNS else ["settings"])]
    some = f", of which {len(shown)} are shown" if len(shown) < count else ""
    lines = [f"{plural(count, 'run')}{some}" + (f", all with {' '.join(command_words(shared))}" if shared else "")]
    return "\n".join([*lines, align([head, *(row[: len(head)] for row in rows)], right=[2])])


def default(found: Selection, run_id: str, key: str) -> str:
    """The value of a setting that has its default; - where the run has no such setting."""
    if key in found.options.defaults and isinstance(found.options.defaults[key], str):
        return str(found.options.defaults[key])
    spec, top = found.specs[run_id], key.partition(".")[0]
    columns = found.columns(spec, top) if top in spec else {}
    return typed(columns[key]) if key in columns else "-"


def accuracy(found: Selection, run_id: str) -> str:
    with suppress(DamagedRun, LookupError, TypeError):
        known = counted_accuracy(found.store.summary(run_id)) if found.store.is_finished(run_id) else None
        return percent(math.nan if known is None else known)
    return "-"
