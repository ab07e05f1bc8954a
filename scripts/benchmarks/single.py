"""Single runs as the command line trains them by default, against plain loops with one and with two threads."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks import commands
from benchmarks.baseline import Loops, Task, plain_loops
from benchmarks.networks import CONVOLUTIONS
from benchmarks.runs import CPU, spec_of
from benchmarks.table import Row
from benchmarks.workload import DIGITS, Workload
from bnstudy.store.runs import Store
from bnstudy.validation import ConfigError

MOST = 1.05
LAYERS = {"3x100": ("model.depth=3", "model.width=100"), "2x512": ("model.depth=2", "model.width=512")}
IMAGES = {"train": 64, "test": 4}
"""Images of each class."""


def single(work: Workload) -> list[Row]:
    images = ("data=image_folder", f"data.root={random_images(work.folder / 'images')}", "batch_size=32")
    networks = {"MLP 4x64 on digits": (DIGITS, 4000)}
    for name, layers in LAYERS.items():
        networks[f"MLP {name} on MNIST"] = (("model=mlp", *layers, "data=mnist", work.root, "batch_size=60"), 1500)
    for name, network in CONVOLUTIONS.items():
        networks[f"{name} on 3x32x32"] = ((*network, *images), 100)
    with ExitStack() as stack:
        loops = {threads: stack.enter_context(plain_loops(1, threads)) for threads in (1, 2)}
        return [compare(work, name, overrides, steps, loops) for name, (overrides, steps) in networks.items()]


def compare(work: Workload, name: str, overrides: tuple[str, ...], steps: int, loops: dict[int, Loops]) -> Row:
    """Time the command and the loops in alternation."""
    what = f"a run of {name}, against the better of plain loops with 1 and 2 threads"
    task = Task(overrides, ("batch",), work.few(steps, 5), 1, work.folder / "cache")
    try:
        spec_of(*overrides, "steps=1").data.load(task.cache, CPU)
    except ConfigError:
        return Row(what, f"skipped: MNIST is not in {work.root}", f"<= {MOST} x")
    ours: list[float] = []
    steps_of_loops: dict[int, list[float]] = {threads: [] for threads in loops}
    for repeat in range(work.repeats + 1):
        work.say(f"a run of {name}")
        store = work.folder / f"{name}-{repeat}"
        ours.append(training_step(work, task, store))
        for threads, each in loops.items():
            steps_of_loops[threads].append(each.seconds_per_step(task))
    peer = {threads: 1000 * median(each) for threads, each in steps_of_loops.items()}
    step = 1000 * median(ours)
    ratio = step / min(peer.values())
    measured = f"{ratio:.2f} x ({step:.2f} ms a step / {peer[1]:.2f} and {peer[2]:.2f} ms)"
    raw = {"seconds_per_step": ours, "loops": steps_of_loops}
    return Row(what, measured, f"<= {MOST} x", ratio <= MOST, raw)


def training_step(work: Workload, task: Task, store: Path) -> float:
    """Seconds per step of the command's only run, without start-up, evaluation and probes."""
    settings = (f"steps={task.steps}", f"results_dir={store}", f"cache_dir={task.cache}")
    commands.run(*task.overrides, "norm=batch", "lr=0.01", *settings, folder=work.folder)
    finished = Store(store)
    [run] = finished.finished()
    return finished.summary(run)["seconds"]["training"] / task.steps


def random_images(root: Path) -> Path:
    """Make a folder of random 3x32x32 images of ten classes."""
    draw = np.random.default_rng(0)
    for split, images in IMAGES.items():
        for label in range(10):
            folder = root / split / str(label)
            folder.mkdir(parents=True)
            for i in range(images):
                Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return root
