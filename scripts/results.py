"""Train, pack and report the published results, or check them.

    python scripts/results.py make DATA       what `make results DATA=...` does
    python scripts/results.py publish         pack and report what is trained
    python scripts/results.py restore         begin with what is published: `make` then trains what is missing
    python scripts/results.py redraw          report what is packed
    python scripts/results.py check           redraw from the packed store, and compare every byte

DATA has MNIST/raw, and cifar10-jpeg/ or cifar10-jpeg.tar. An interrupted `make` goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bnstudy.report.tables import as_json  # noqa: E402
from bnstudy.report.terminal import stages_shown  # noqa: E402
from bnstudy.store.archive import NAMES, PACKED  # noqa: E402
from bnstudy.store.files import write_bytes  # noqa: E402
from bnstudy.store.packed import open_packed  # noqa: E402
from bnstudy.store.plans import Plans  # noqa: E402
from bnstudy.store.unpacking import restore_thin  # noqa: E402
from bnstudy.validation import ConfigError  # noqa: E402
from scripts.published.files import DIGITS, digits_entries, published_files, read_digits  # noqa: E402
from scripts.published.parts import PARTS  # noqa: E402
from scripts.published.provenance import pack_words  # noqa: E402
from scripts.published.record import PUBLISHED, RECORD, WORK, Record  # noqa: E402
from scripts.published.training import say, take_back_earlier_plans, train_parts, wait_for  # noqa: E402

TRIAL = Path("results/trial")
"""In place of `WORK`, with other settings on trial: git ignores it as well."""
LARGEST = 20e6
"""Bytes of everything that is published."""


def publish(work: Path) -> None:
    """Pack the runs of the work, and write all published files.

    Raises:
        ConfigError: the runs cannot be packed, or the files are too large.
    """
    trained, digits = work / "standard", work / "digits"
    for store in (trained, digits):
        take_back_earlier_plans(store)
    words = pack_words(planned_studies(trained), trained)
    say(shlex.join(["bnstudy", *words]))
    if wait_for([sys.executable, "-m", "bnstudy", *words]):
        raise ConfigError(f"The runs in {trained} cannot be packed.")
    if (digits / "studies").is_dir():
        with stages_shown() as show:
            write_bytes(PUBLISHED / DIGITS, as_json(digits_entries(digits, show)).encode())
    write_bytes(PUBLISHED / RECORD, (work / RECORD).read_bytes())
    redraw()
    for path in sorted(shipped(PUBLISHED)):
        say(f"{path.stat().st_size / 1e6:8.3f} MB  {path}")
    say(f"{PUBLISHED}: {size_of(PUBLISHED) / 1e6:.1f} MB in all.")
    if too_large := describe_excess():
        raise ConfigError(too_large)


def planned_studies(store: Path) -> list[str]:
    """The studies that are published, of those with a plan: a store may have runs that no plan has any more.

    Raises:
        ConfigError: there are none.
    """
    planned = Plans(store).studies()
    names = [name for part in PARTS if part.store == store.name for name in part.studies]
    if missing := [name for name in names if name not in planned]:
        say(f"Not trained, and not published: {', '.join(missing)}.")
    if len(missing) == len(names):
        raise ConfigError(f"Nothing is trained in {store}: `make results` trains it.")
    return sorted({*names} - {*missing})


def restore(folder: Path, work: Path) -> None:
    """Write the runs of a packed folder as folders, so that `make` trains only runs that it lacks.

    Raises:
        ConfigError: nothing is published, its record is missing, or runs are in the work already.
    """
    if (work / RECORD).exists():
        raise ConfigError(
            f"{work} has runs already, with which `make` goes on. To begin with what is published, remove it."
        )
    packed = open_packed(folder)
    if not (folder / RECORD).is_file():
        raise ConfigError(f"{folder} has no {RECORD}, which says how its runs were made.")
    with tqdm(total=packed.archive.runs, desc="restore", disable=not sys.stderr.isatty()) as bar:
        restore_thin(packed, work / "standard", bar.update)
    write_bytes(work / RECORD, (folder / RECORD).read_bytes())


def redraw() -> None:
    """Write all files that the packed store determines."""
    files = draw()
    for old in {*PUBLISHED.glob("figures/*")} - {*files}:
        old.unlink()
    for path, content in files.items():
        write_bytes(path, content)


def draw() -> dict[Path, bytes]:
    with stages_shown() as show:
        return published_files(read_digits(), show)


def describe_excess() -> str:
    size = size_of(PUBLISHED)
    return f"{PUBLISHED} has {size / 1e6:.1f} MB: at most {LARGEST / 1e6:.0f} MB are allowed." if size > LARGEST else ""


def shipped(folder: Path) -> list[Path]:
    """The published files, without reports that somebody has drawn."""
    return [path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0] != "reports"]


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in shipped(folder))


def check() -> int:
    """0 if every published file is what the packed store gives; nothing is written."""
    if not (PUBLISHED / "packed.json").exists():
        say(f"Nothing is published: there is no {PUBLISHED}/packed.json. `make results` trains and publishes.")
        return 0
    files = draw()
    differing = [path for path, content in files.items() if not path.exists() or path.read_bytes() != content]
    own = {*files, *(PUBLISHED / name for name in (PACKED, *NAMES, DIGITS, RECORD))}
    extra = {*shipped(PUBLISHED)} - own
    for path in differing:
        say(f"{path} is not what the packed store gives." if path.exists() else f"{path} is missing.")
    for path in sorted(extra):
        say(f"{path} is not one of the published files: delete it.")
    if differing:
        say("To write them anew from the packed store: python scripts/results.py redraw")
    if too_large := describe_excess():
        say(too_large)
    if differing or extra or too_large:
        return 1
    say(f"{len(files)} published files are what the packed store gives, byte for byte.")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    names = [part.name for part in PARTS]
    train = commands.add_parser("make", help="train, pack and report")
    train.add_argument("data", type=Path)
    train.add_argument("--parts", nargs="+", choices=names, default=names, help="default: all")
    train.add_argument("--only-train", action="store_true", help="do not pack and report")
    train.add_argument(
        "--override",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help=f"such as seed=0,1: for a trial in {TRIAL}, which is not published",
    )
    commands.add_parser("publish", help="pack and report what is trained")
    begin = commands.add_parser("restore", help="begin with what is published")
    begin.add_argument(
        "folder", nargs="?", type=Path, default=PUBLISHED, help=f"in the repository; default: {PUBLISHED}"
    )
    commands.add_parser("redraw", help="report what is packed")
    commands.add_parser("check", help="compare the published files with the packed store")
    arguments = parser.parse_args()
    begun = time.monotonic()
    data = arguments.data.absolute() if arguments.command == "make" else None
    is_trial = data is not None and bool(arguments.override)
    work = TRIAL if is_trial else WORK
    os.chdir(ROOT)
    try:
        if arguments.command == "check":
            return check()
        if arguments.command == "redraw":
            redraw()
            return 0
        if arguments.command == "restore":
            restore(arguments.folder, work)
            return 0
        if data is not None:
            chosen = [part for part in PARTS if part.name in arguments.parts]
            train_parts(chosen, data, work, arguments.override)
            if arguments.only_train or is_trial:
                return 0
        publish(work)
    except ConfigError as error:
        print(f"results.py: {error}", file=sys.stderr)
        return 2
    say(f"{time.monotonic() - begun:.0f} s for this command, {Record(work).seconds:.0f} s of training in all.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
