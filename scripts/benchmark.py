"""What things cost, as ratios measured in one call. Each subcommand prints a table and can write JSON.

    python scripts/benchmark.py sweep [data.root=DIR] [--steps 2000] [--repeats 1] [--only digits ...] [--json FILE]
    python scripts/benchmark.py runner [data.root=DIR] [--steps 1000] [--repeats 3] [--tasks mlp resnet] [--json FILE]
    python scripts/benchmark.py probes [data.root=DIR] [--steps 1000] [--repeats 3] [--presets standard] [--json FILE]

`sweep` measures whole commands, from the start of the interpreter to the table at the end, on two cores:

  digits      256 runs of an MLP 64-64-64-64-10 against plain loops, in one process and in two, and what memory the
              command takes; once more with 300 steps a run, where starting counts for more
  mnist       32 runs of an MLP 784-100-100-100-10 against two processes of plain loops; MNIST from `data.root`
  planning    1,000 runs: a dry run, and the same command again when all of them are finished
  recording   what measuring and storing adds to a stack of 32 runs, evaluation apart
  quickstart  the quickstart study and its report

The plain loops are one run after another in torch.nn and torch.optim.SGD on tensors, one thread a process, nothing
recorded. A few runs of each kind are timed, before and after each command, and stand for all; their learning rate
does not matter to the time. Start-up, and reading the data, is counted for bnstudy only.

`runner` compares, on the MLP 784-100-100-100-10 with batch normalization and batches of 60, and on a ResNet-8 on
32x32 images with batches of 64, in alternation:

  bare        a plain PyTorch loop over in-memory tensors, nothing recorded
  runner      bnstudy's runner with its default recording (evaluation apart: the others do none)
  dataloader  a plain loop over a DataLoader with torchvision transforms
  lightning   the same under Lightning, where it is installed: pip install bnstudy[lightning]

`probes` measures what each probe, and each preset of them (none, light, standard, full), adds to the training of that
MLP, one run and a stack of 8: by the runs' own clocks, and by wall time against no probes, in alternation.

The MLP takes MNIST from `data.root` (random images where it is missing), the ResNet random images.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line sets it, for all contenders

import torch
from benchmarks.probes import known_presets, measure_probes
from benchmarks.runner import TASKS, measure_runner
from benchmarks.sweep import CORES, MEASURES, measure_sweep


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    sweep = commands.add_parser("sweep", help="whole commands against plain loops")
    sweep.set_defaults(measure=measure_sweep, threads=None)
    sweep.add_argument("--only", nargs="+", choices=list(MEASURES), default=list(MEASURES), metavar="NAME")
    sweep.add_argument("--cores", type=int, default=CORES, help="use so many")
    sweep.add_argument("--try-out", action="store_true", help="a few short runs: to see that it works")
    runner = commands.add_parser("runner", help="the runner against plain loops")
    runner.set_defaults(measure=measure_runner)
    runner.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    runner.add_argument("--threads", type=int, help="CPU threads; torch's choice if not given")
    probes = commands.add_parser("probes", help="what probes add to training")
    probes.set_defaults(measure=measure_probes, threads=1)
    presets = known_presets()
    probes.add_argument("--presets", nargs="+", choices=presets[1:], default=presets[1:])
    for command, steps, repeats in ((sweep, 2000, 1), (runner, 1000, 3), (probes, 1000, 3)):
        command.add_argument("root", nargs="?", default="data.root=data", help="data.root=DIR with MNIST in it")
        command.add_argument("--steps", type=int, default=steps, help="updates of each run")
        command.add_argument("--repeats", type=int, default=repeats)
        command.add_argument("--json", type=Path, help="where to write the figures")
    return parser


def main() -> None:
    options = parser().parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    tasks = options.measure(options)
    if options.json:
        figures = {"torch": torch.__version__, "threads": torch.get_num_threads(), "tasks": tasks}
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
