"""`bnstudy pack DIR`: the finished runs of a store as a few files, to ship or publish."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from bnstudy.claims.claim import load_claims
from bnstudy.commands.arguments import Arguments, read_arguments, say
from bnstudy.commands.selection import find_plans, select
from bnstudy.store.archive import refuse_packed
from bnstudy.store.packing import pack
from bnstudy.store.plans import Plans
from bnstudy.store.thin import LOSSES
from bnstudy.sweep.messages import plural
from bnstudy.validation import ConfigError

HELP = f"""The finished runs of a store as a few files, which can be read like a store.

bnstudy pack packed                            all finished runs
bnstudy pack packed study=cost,depth           those of two studies
bnstudy pack packed study=cost scale=quick
bnstudy pack packed norm=batch lr=0.1          as bnstudy list --runs finds them
bnstudy pack packed --thin results_dir=mine    with the training loss at {LOSSES} steps

bnstudy-report results_dir=packed draws its reports. Other files in the folder
stay. bnstudy unpack makes a store of it again.
"""
FLAGS = {"thin": f"keep the training loss at {LOSSES} log-spaced steps, and what claims compute from all of it"}


def run(arguments: Sequence[str]) -> int:
    given = read_arguments(
        "pack", HELP, arguments, FLAGS, takes_folder=True, keys=None, takes_settings=True
    )  # fmt: skip
    refuse_packed(given.store.results_dir)
    folder = Path(given.named[0]).expanduser()
    if folder.resolve() == given.store.results_dir.resolve():
        raise ConfigError(f"{folder} is not allowed: it is the store itself. Name another folder.")
    chosen, plans = choose_runs(given), choose_plans(given)
    whole = find_whole(given) if given.flags.thin else set[str]()
    with tqdm(total=len(chosen), desc="pack", disable=not sys.stderr.isatty(), dynamic_ncols=True) as bar:
        done = pack(given.store, chosen, plans, folder, given.flags.thin, bar.update, whole)
    size = sum(path.stat().st_size for path in folder.glob("*.parquet"))
    kept = f", and all of it of {plural(len(whole & {*chosen}), 'run')} whose claims need it" * bool(whole & {*chosen})
    thin = f", training loss at {LOSSES} steps{kept}" * given.flags.thin
    each = f"{size / 1e6:.1f} MB, {size / done.runs / 1e3:.1f} kB a run"
    say(f"Packed {plural(done.runs, 'run')} in {folder} ({each}{thin}).")
    for sentence in done.damages.values():
        say(f"{sentence} It was left out.")
    return 1 if done.damages else 0


def choose_runs(given: Arguments) -> list[str]:
    """The finished runs to pack: runs of one study together, so that reports read them at once.

    Raises:
        ConfigError: there are none.
    """
    store, plans = given.store, Plans(given.store.results_dir)
    ids = select(store, given.options, given.values).run_ids if given.values else store.run_ids()
    finished = {run_id for run_id in ids if store.is_finished(run_id)}
    if not finished:
        raise ConfigError(f"There is no finished run like this in {store.results_dir}.")
    planned = [plan for study in plans.studies() for plan in sorted(plans.load(study), key=lambda p: str(p["scale"]))]
    ordered = dict.fromkeys(run_id for plan in planned for run_id in plan["run_ids"])
    return [run_id for run_id in (*ordered, *sorted(finished - ordered.keys())) if run_id in finished]


def find_whole(given: Arguments) -> set[str]:
    """The planned runs of studies with a claim that reads the training loss of every step, or a claim that is unknown
    here."""
    plans = Plans(given.store.results_dir)
    every = [plan for study in plans.studies() for plan in plans.load(study)]
    needing = [plan for plan in every if needs_every_loss(plan["claims"], given.options.folders)]
    return {run_id for plan in needing for run_id in plan["run_ids"]}


def needs_every_loss(claims: Sequence[str], folders: Sequence[Path]) -> bool:
    try:
        found = load_claims(claims, [folder / "claim" for folder in folders])
    except ConfigError:
        return True
    return any(claim.measure.reads_every_loss for claim in found)


def choose_plans(given: Arguments) -> list[Path]:
    """The files of the plans of the studies, and marks of reports on them."""
    words = {key: value for key, value in given.values.items() if key in ("study", "scale")}
    plans = Plans(given.store.results_dir)
    return [path for plan in find_plans(given.store, words) for path in plans.files(plan["name"], plan["scale"])]
