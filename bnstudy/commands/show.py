"""`bnstudy show RUN`: one run, with the command line that repeats it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from bnstudy.commands.arguments import Arguments, find_run, read_arguments, say
from bnstudy.commands.selection import states
from bnstudy.commands.settings import Words, command_words, typed
from bnstudy.commands.workers import worker_text
from bnstudy.report.commands import RESULTS_DIR
from bnstudy.report.terminal import align
from bnstudy.store.activity import age_of, find_workers, folder_bytes, saved_step
from bnstudy.store.archive import is_packed
from bnstudy.store.checksums import shorten
from bnstudy.store.flat import spec_columns
from bnstudy.store.integrity import DamagedRun
from bnstudy.store.plans import Plans
from bnstudy.store.runs import Store
from bnstudy.sweep.messages import last_line, plural
from bnstudy.sweep.progress import duration

HELP = """One run: its settings, its results, and the command line that repeats it.

bnstudy show 0a1b2c3d    the run whose id begins with these digits, at least 4
"""

Rows = list[tuple[str, str]]


def run(arguments: Sequence[str]) -> int:
    given = read_arguments("show", HELP, arguments, runs=1)
    run_id = find_run(given.store, given.named[0])
    damages: dict[str, str] = {}
    spec, summary = read(given.store, run_id, damages)
    status = states(given.store, [run_id], damages)[run_id]
    what = f": {name(spec)}" if spec else ""
    try:
        rows = [("status", status), *results(summary), *progress(given.store, run_id, spec)]
    except (LookupError, TypeError, ValueError) as error:  # of a store that somebody else wrote
        rows = [("status", status), ("results", f"summary.json cannot be shown ({error})")]
    rows += [("damaged", damages[run_id])] if run_id in damages else []
    rows += [*files(given.store, run_id), ("studies", "; ".join(planned_by(given.store, run_id)) or "none plans it")]
    say(f"Run {run_id}{what}\n\n{align([[f'  {key}', text] for key, text in rows])}")
    if spec:
        describe_settings(given, run_id, spec)
    return 1 if run_id in damages else 0


def read(store: Store, run_id: str, damages: dict[str, str]) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The configuration and the summary of a run, as far as they are there and intact."""
    spec = summary = None
    try:
        spec = store.config(run_id)
        summary = store.check(run_id) if store.is_finished(run_id) else None
    except DamagedRun as damage:
        damages[run_id] = str(damage)
    return spec, summary


def name(spec: Mapping[str, Any]) -> str:
    labels = spec_columns({key: spec.get(key) for key in ("model", "data", "norm", "lr", "seed")})
    texts = {key: value if isinstance(value, str) else typed(value) for key, value in labels.items()}
    return "{model} on {data}, {norm}, lr={lr}, seed={seed}".format(**texts)


def results(summary: Mapping[str, Any] | None) -> Rows:
    """What is in the summary of a finished run."""
    if summary is None:
        return []
    final, best, seconds = summary["final"], summary["best"], summary["seconds"]
    rows = [("steps", steps_text(summary))]
    if summary.get("diverged_step") is not None:
        rows.append(("diverged", f"at step {summary['diverged_step']}: {summary['diverged_because']}"))
    rows.append(("accuracy", f"test {share(final, 'test')}, validation {share(final, 'val')}"))
    if best.get("val_accuracy") is not None:
        at_best = f"validation {share(best, 'val')} at step {best['step']}, with test {share(best, 'test')}"
        rows.append(("at its best", at_best))
    losses = [f"{part} {number(final.get(f'{key}_loss'))}" for key, part in SPLITS.items()]
    rows.append(("loss", ", ".join(losses)))
    parts = [
        f"{part} {seconds_text(seconds[part])}" for part in ("training", "evaluation", "probes") if part in seconds
    ]
    rows.append(("time", f"{seconds_text(seconds['total'])} ({', '.join(parts)})"))
    rows.append(("engine", engine_text(summary)))
    versions = ", ".join(f"{package} {version}" for package, version in summary.get("versions", {}).items())
    commit = summary.get("git_commit")
    rows.append(("versions", (versions or "not recorded") + (f", commit {shorten(commit)}" if commit else "")))
    data = summary["dataset"]
    sizes = f"{data['train']} training, {data['val']} validation, {data['test']} test images"
    rows.append(("dataset", f"{data['name']}, {sizes}, checksum {shorten(data['checksum'])}"))
    return rows


SPLITS = {"train": "training", "val": "validation", "test": "test"}


def steps_text(summary: Mapping[str, Any]) -> str:
    stopped = summary.get("stopped_step")
    return str(summary["steps"]) + (f", stopped early at step {stopped}" if stopped is not None else "")


def share(part: Mapping[str, Any], split: str) -> str:
    value = part.get(f"{split}_accuracy")
    return "-" if value is None else f"{100 * value:.2f}%"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def seconds_text(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.2g} s" if seconds < 10 else duration(seconds)


def engine_text(summary: Mapping[str, Any]) -> str:
    size, why = summary.get("stack_size", 1), summary.get("not_stacked_because")
    stacked = f"stacked, {plural(size, 'run')} together" if summary["engine"] == "stacked" else str(summary["engine"])
    compiled = ", compiled" if summary.get("compiled") else ""
    return f"{stacked}{compiled}, on {summary['device']}" + (f" (not stacked because {why})" if why else "")


def progress(store: Store, run_id: str, spec: Mapping[str, Any] | None) -> Rows:
    """The holder, checkpoint and error of an unfinished run."""
    if store.is_finished(run_id):
        return []
    rows = [("held by", worker_text(worker)) for worker in find_workers(store, [run_id]) if worker.run_ids]
    paths = store.run(run_id)
    if (age := age_of(paths.checkpoint)) is not None:
        step, of = saved_step(paths.checkpoint), f" of {spec['steps']}" if spec and spec.get("steps") else ""
        where = "cannot be read" if step is None else f"at step {step}{of}"
        rows.append(("checkpoint", f"{where}, saved {duration(age)} ago"))
    if error := last_line(paths.error):
        rows.append(("error", f"{error} (traceback in {paths.error})"))
    return rows


def files(store: Store, run_id: str) -> Rows:
    folder = store.run(run_id).folder
    if is_packed(store.results_dir):
        return [("packed in", str(store.results_dir))]
    names = ", ".join(sorted(os.listdir(folder)))
    return [("folder", str(folder)), ("files", f"{names} ({folder_bytes(folder) / 1e3:.0f} kB)")]


def planned_by(store: Store, run_id: str) -> list[str]:
    plans = Plans(store.results_dir)
    found = [plan for study in plans.studies() for plan in plans.load(study) if run_id in set(plan["run_ids"])]
    return [f"{plan['name']} (scale={plan['scale']})" for plan in found]


def describe_settings(given: Arguments, run_id: str, spec: Mapping[str, Any]) -> None:
    """What differs from the defaults, and the command line with that."""
    words = given.options.words(spec)
    named = {key.lstrip("+"): text for key, text in words.items() if not key.startswith("~")}
    rows = [[f"  {key}", text, given.options.default(words, key)] for key, text in named.items()]
    say("\nSettings that differ from the defaults" + (":" if rows else ": none."))
    if rows:
        say(align([["  setting", "value", "default"], *rows]))
    is_here = given.store.is_finished(run_id)
    folder = [f"results_dir={given.store.results_dir}"] * (not is_here and given.store.results_dir != RESULTS_DIR)
    own = [f"--config-dir={folder}" for folder in given.options.folders]
    command = shlex.join(["bnstudy", *own, *command_words(words), *folder])
    then = "The command that trains the same run; here it is stored, so add results_dir=FOLDER to train it anew:"
    say(f"\n{then if is_here else 'The command that trains it:'}\n  {command}")
    for key in unrecorded(words):
        say(f"  {key}=... is not recorded: add it.")


def unrecorded(words: Words) -> list[str]:
    """Keys that say where a file of the user's is."""
    folder = ["data.root"] * (words.get("data") == "image_folder" or "+data" in words)
    return folder + ["model.weights"] * ("model.weights_checksum" in words)
