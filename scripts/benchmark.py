"""Measure time and memory, as ratios within one call. Each subcommand prints a table and can write JSON.

    python scripts/benchmark.py sweep [data.root=DIR] [--repeats 2] [--only digits ...] [--json FILE]
    python scripts/benchmark.py runner [data.root=DIR] [--steps 1000] [--repeats 3] [--tasks mlp resnet] [--json FILE]
    python scripts/benchmark.py probes [data.root=DIR] [--steps 1000] [--repeats 3] [--presets standard] [--json FILE]
    python scripts/benchmark.py versions CHECKOUT [--steps 500] [--repeats 3] [--json FILE]

`sweep` times whole commands, from the start of the interpreter to the final table, on two cores. All groups but the
last two take about 15 minutes together:

  digits        256 runs of an MLP 64-64-64-64-64-10 against plain loops in one and in two processes, and against a
                script in JAX, if it is installed: pip install bnstudy[benchmark]; the memory of the command; the time
                that does not depend on the number of steps
  planning      1,000 runs: a dry run, and the same command again after all runs have finished
  single        one run with default threads, of three MLPs, VGG-8 and ResNet-8, against plain loops with one and two
                threads, without start-up, evaluation and probes; MNIST from `data.root`
  convolutions  32 runs of VGG-8 and ResNet-8 on digits against two processes of plain loops
  mnist         32 runs of an MLP 784-100-100-100-10 against two processes of plain loops; MNIST from `data.root`
  large         20,000 planned runs, and 300 stacks in one worker: CPU time and memory
  recording     the time that measuring and storing add to a stack of 32 runs, without evaluation
  quickstart    the quickstart study and its report
  packed        a report on 10,000 made-up runs from a packed store, against the store of one folder a run, only with
                --only packed: it takes minutes
  report        all studies at quick scale and their report, only with --only report: it takes minutes

The plain loops train one run after another with torch.nn and torch.optim.SGD on tensors, by default with one thread
per process, and record nothing. A few runs of each kind are timed before and after each command and represent all
runs; the learning rate does not change the time. Start-up and reading the data count for bnstudy and JAX only. Each
store is empty. "Empty caches" means that the user's cache folder is empty; "warm", that another sweep of the kind was
run before, with another store.

`runner` compares four ways to train, in alternation, on the MLP 784-100-100-100-10 with batch normalization and
batches of 60, and on a ResNet-8 on 32x32 images with batches of 64:

  bare        a plain PyTorch loop over in-memory tensors, without recording
  runner      bnstudy's runner with its default recording, without evaluation, which the others do not do
  dataloader  a plain loop over a DataLoader with torchvision transforms
  lightning   the same with Lightning, if it is installed: pip install bnstudy[lightning]

`probes` measures the overhead of each probe and of each preset (none, light, standard, full) for that MLP, for one
run and a stack of 8: by the runs' own clocks, and by wall time against training without probes, in alternation.

`versions` runs the same commands with this checkout and with another one, such as the commit before a change, in
alternation: help, planning, training, a study and its report. It prints the ratio of their wall and CPU seconds.

The MLP uses MNIST from `data.root`, or random images if it is missing; the ResNet uses random images.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

if sys.argv[1:2] != ["sweep"]:  # which compares commands with scripts
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")  # as the command line sets it, for all loops

import torch
from benchmarks.probes import known_presets, measure_probes
from benchmarks.runner import TASKS, measure_runner
from benchmarks.sweep import CORES, DEFAULT, GROUPS, measure_sweep
from benchmarks.versions import measure_versions


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    sweep = commands.add_parser("sweep", help="whole commands against plain loops")
    sweep.set_defaults(measure=measure_sweep, threads=None)
    sweep.add_argument("--only", nargs="+", choices=list(GROUPS), default=DEFAULT, metavar="NAME")
    sweep.add_argument("--cores", type=int, default=CORES, help="number of cores to use")
    sweep.add_argument("--try-out", action="store_true", help="a few short runs, to test the script")
    runner = commands.add_parser("runner", help="the runner against plain loops")
    runner.set_defaults(measure=measure_runner)
    runner.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    runner.add_argument("--threads", type=int, help="CPU threads; default: torch's choice")
    probes = commands.add_parser("probes", help="the overhead of probes")
    probes.set_defaults(measure=measure_probes, threads=1)
    presets = known_presets()
    probes.add_argument("--presets", nargs="+", choices=presets[1:], default=presets[1:])
    versions = commands.add_parser("versions", help="this checkout against another one")
    versions.set_defaults(measure=measure_versions, threads=None)
    versions.add_argument("other", type=Path, help="root of the other checkout")
    for command in (sweep, runner, probes):
        command.add_argument("root", nargs="?", default="data.root=data", help="data.root=DIR with MNIST in it")
    for command, steps in ((runner, 1000), (probes, 1000), (versions, 500)):
        command.add_argument("--steps", type=int, default=steps, help="steps of each run")
    for command, repeats in ((sweep, 2), (runner, 3), (probes, 3), (versions, 3)):
        command.add_argument("--repeats", type=int, default=repeats)
        command.add_argument("--json", type=Path, help="file for the results")
    return parser


def main() -> None:
    options = parser().parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    tasks = options.measure(options)
    if options.json:
        results = {"torch": torch.__version__, "threads": torch.get_num_threads(), "tasks": tasks}
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
