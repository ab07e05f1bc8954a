"""`bnstudy unpack DIR`: a store of what `bnstudy pack` made."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from bnstudy.commands.arguments import read_arguments, say
from bnstudy.store.archive import refuse_packed
from bnstudy.store.packed import open_packed
from bnstudy.store.unpacking import unpack
from bnstudy.sweep.messages import plural

HELP = """A store with the runs and plans of a packed store, all files as they were.

bnstudy unpack packed results_dir=mine

Runs that are finished in results_dir already stay as they are.
"""


def run(arguments: Sequence[str]) -> int:
    given = read_arguments("unpack", HELP, arguments, takes_folder=True, needs_store=False)
    target = given.store.results_dir
    refuse_packed(target)
    packed = open_packed(Path(given.named[0]).expanduser())
    with tqdm(total=packed.archive.runs, desc="unpack", disable=not sys.stderr.isatty(), dynamic_ncols=True) as bar:
        done = unpack(packed, target, bar.update)
    there = f" {plural(done.present, 'run')} had been finished there already and stayed." * bool(done.present)
    say(f"Unpacked {plural(done.runs, 'run')} to {target}.{there}")
    return 0
