"""`bnstudy prune`: removes runs from a store, or the plan of a command line."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime

from bnstudy.commands.arguments import Arguments, read_arguments, say
from bnstudy.commands.selection import STATUSES, find_plans, select, states
from bnstudy.commands.workers import worker_text
from bnstudy.store.activity import find_workers, folder_bytes
from bnstudy.store.archive import refuse_packed
from bnstudy.store.integrity import DamagedRun, LaterVersion
from bnstudy.store.plans import Plans
from bnstudy.store.removal import empty_trash, remove_runs
from bnstudy.store.runs import Store
from bnstudy.sweep.messages import plural
from bnstudy.validation import ConfigError

HELP = """Remove runs from the store, or take back the plan of a study.

bnstudy prune --unfinished                  planned or begun, not finished
bnstudy prune --failed
bnstudy prune --damaged
bnstudy prune study=cost scale=quick        those that no other study plans
bnstudy prune norm=layer lr=0.1             as bnstudy list --runs finds them
bnstudy prune --unfinished study=cost       those for which both are true
bnstudy prune --plan study=cost             a plan; its runs stay

It says what it would remove, and asks. Runs that a worker trains stay.
"""
KINDS = {
    "unfinished": "runs that are not finished, and have not failed",
    "failed": "runs that failed",
    "damaged": "runs with a damaged file, for which all files are read",
}
FLAGS = KINDS | {
    "plan": "take back what a command line planned: number=N",
    "yes": "do not ask",
}


def run(arguments: Sequence[str]) -> int:
    given = read_arguments("prune", HELP, arguments, FLAGS, keys=None, takes_settings=True)
    refuse_packed(given.store.results_dir)
    if given.flags.plan:
        return prune_plan(given)
    kinds = {kind for kind in KINDS if getattr(given.flags, kind)}
    if not kinds and not given.values:
        raise ConfigError(
            "bnstudy prune needs to know which runs: --unfinished, --failed, --damaged, study=NAME, or settings such "
            "as norm=batch lr=0.1."
        )
    return prune_runs(given, kinds)


def prune_runs(given: Arguments, kinds: Collection[str]) -> int:
    store = given.store
    chosen = choose(given, kinds)
    others = planned_elsewhere(given, chosen) if {"study", "scale"} & given.values.keys() else {}
    workers = [w for w in find_workers(store, [r for r in chosen if r not in others]) if w.run_ids and not w.is_stale]
    running = {run_id for worker in workers for run_id in worker.run_ids}
    removed = {run_id: kind for run_id, kind in chosen.items() if run_id not in others and run_id not in running}
    for worker in workers:
        say(f"Stays: {plural(len(worker.run_ids), 'run')} of {worker_text(worker)}.")
    for name, count in Counter(others.values()).items():
        say(f"Stays: {plural(count, 'run')} that {name} also plans. To remove them too, name both studies: study=A,B.")
    if not removed:
        say(f"There is nothing to remove in {store.results_dir}.")
        if empty_trash(store):
            say("What an earlier command had removed is now deleted.")
        return 0
    size = sum(folder_bytes(store.run(run_id).folder) for run_id in removed)
    counts = Counter(removed.values())
    of_kinds = ", ".join(f"{counts[kind]} {kind}" for kind in STATUSES if kind in counts)
    say(f"{plural(len(removed), 'run')} of {store.results_dir} to remove ({kilobytes(size)}): {of_kinds}.")
    if not confirm(given, "Remove them?"):
        return 0
    finished = [run_id for run_id in removed if store.is_finished(run_id)]
    gone, stay = remove_runs(store, finished, [*removed.keys() - {*finished}], announce_watch)
    say(f"{plural(len(gone), 'run')} removed.")
    if stay:
        say(f"{plural(len(stay), 'run')} stay: a worker has taken or finished them meanwhile.")
    if "study" in given.values and not kinds:
        say(f"Their plan stays: bnstudy prune --plan study={given.values['study']} takes it back.")
    return 0


def choose(given: Arguments, kinds: Collection[str]) -> dict[str, str]:
    """The status of each chosen run. With --unfinished also the running ones, to say that they stay."""
    store = given.store
    ids = select(store, given.options, given.values).run_ids if given.values else store.run_ids()
    damaged = {run_id for run_id in ids if is_damaged(store, run_id)} if "damaged" in kinds else set[str]()
    found = states(store, ids, dict.fromkeys(damaged, ""))
    if not kinds:
        return found
    wanted = {*kinds, "running"} if "unfinished" in kinds else {*kinds}
    return {r: status for r, status in found.items() if status in wanted and (status != "damaged" or r in damaged)}


def is_damaged(store: Store, run_id: str) -> bool:
    """Whether a file of the run cannot be used: neither one of a later version, nor one that cannot be read now."""
    try:
        if store.is_finished(run_id):
            store.check(run_id)
        elif store.run(run_id).config.exists():
            store.config(run_id)
    except DamagedRun as damage:
        cause = damage.__cause__
        return not isinstance(cause, LaterVersion) and not (isinstance(cause, OSError) and cause.errno is not None)
    return False


def planned_elsewhere(given: Arguments, chosen: Collection[str]) -> dict[str, str]:
    """The runs that another study plans than those named, or the study at another scale."""
    named = [(plan["name"], plan["scale"]) for plan in find_plans(given.store, given.values)]
    found: dict[str, str] = {}
    for plan in find_plans(given.store, {}):
        if (plan["name"], plan["scale"]) not in named:
            name = f"study {plan['name']} (scale={plan['scale']})"
            found |= dict.fromkeys({*plan["run_ids"]} & {*chosen}, name)
    return found


def prune_plan(given: Arguments) -> int:
    plans, study = Plans(given.store.results_dir), given.values.get("study")
    if unknown := given.values.keys() - {"study", "scale", "number"}:
        raise ConfigError(f"{min(unknown)} is not allowed with --plan: choose by study=NAME, scale=NAME and number=N.")
    if study is None:
        raise ConfigError("bnstudy prune --plan needs study=NAME.")
    scales, study = {plan["scale"] for plan in find_plans(given.store, given.values)}, plans.find(study)
    lines = [line for line in plans.commands(study) if line.scale in scales]
    for number, line in enumerate(lines, start=1):
        when = datetime.fromtimestamp(line.planned_ns / 1e9).strftime("%Y-%m-%d %H:%M")
        say(f"{number}  {line.command}\n   {when}, scale={line.scale}, {plural(len(line.run_ids), 'run')}")
    number_text = given.values.get("number") or ask_number(len(lines), given)
    if not number_text:
        say("Nothing was removed.")
        return 0
    if not (number_text.isdecimal() and 1 <= int(number_text) <= len(lines)):
        raise ConfigError(f"number={number_text} is not allowed: it must be a whole number from 1 to {len(lines)}.")
    line = lines[int(number_text) - 1]
    if not confirm(given, f"Take back plan {number_text}? Its runs stay."):
        return 0
    plans.remove(line)
    say(f"Plan {number_text} taken back. bnstudy-report study={study} no longer expects its runs.")
    return 0


def ask_number(count: int, given: Arguments) -> str:
    if count == 1 and given.flags.yes:
        return "1"
    if not is_terminal():
        number = "number=N and " * (count > 1)
        raise ConfigError(f"Nothing was removed, since there is no terminal to ask on: add {number}--yes.")
    return answer("Which one? Its number, or Enter for none: ")


def confirm(given: Arguments, question: str) -> bool:
    """Raises ConfigError if there is nobody to ask."""
    if given.flags.yes:
        return True
    if not is_terminal():
        raise ConfigError("Nothing was removed, since there is no terminal to ask on: add --yes.")
    agreed = answer(f"{question} [y/N] ").lower() in ("y", "yes")
    if not agreed:
        say("Nothing was removed.")
    return agreed


def is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def answer(question: str) -> str:
    try:
        return input(question).strip()
    except EOFError:
        print()
        return ""


def announce_watch(seconds: float) -> None:
    say(f"Some workers on other machines are silent. They are watched for {seconds:.0f} s, in case that they live.")


def kilobytes(size: int) -> str:
    return f"{size / 1e3:.0f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB"
