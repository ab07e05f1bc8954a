"""`benchmark.py runner`: the time of one run, in alternation with plain loops."""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace

import torch

from benchmarks.loops import Loop, available_loops
from benchmarks.runs import mnist, random_dataset, spec_of
from bnstudy.data.dataset import Dataset
from bnstudy.run import RunSpec


def time_in_turn(loops: dict[str, Loop], spec: RunSpec, data: Dataset, repeats: int) -> dict[str, list[float]]:
    """Milliseconds per step of each loop, in turn after a short warm-up, so that drifts of the machine affect all."""
    for loop in loops.values():
        loop(replace(spec, steps=min(10, spec.total_steps(len(data.train)))), data)
    steps = spec.total_steps(len(data.train))
    times: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(repeats):
        for name, loop in loops.items():
            times[name].append(1000 * loop(spec, data) / steps)
    return times


def print_times(task: str, times: dict[str, list[float]]) -> dict[str, object]:
    """Print a row for each loop; the ratio is the median over repeats of loop / bare within one repeat."""
    print(f"\n{task}\n{'':12}{'ms/step':>9}{'min':>9}{'max':>9}{'x bare':>9}")
    rows = {}
    for name, of_loop in times.items():
        ratio = statistics.median(a / b for a, b in zip(of_loop, times["bare"], strict=True))
        rows[name] = {"ms_per_step": of_loop, "median": statistics.median(of_loop), "ratio_to_bare": ratio}
        print(f"{name:12}{statistics.median(of_loop):9.3f}{min(of_loop):9.3f}{max(of_loop):9.3f}{ratio:9.2f}")
    return {"task": task, "loops": rows}


def mlp_task(options: argparse.Namespace) -> tuple[str, RunSpec, Dataset]:
    spec = spec_of(
        "model=mlp", "model.width=100", "data=mnist", options.root, "batch_size=60", f"steps={options.steps}"
    )
    data = mnist(spec)
    return f"MLP 784-100-100-100-10, batch norm, batch 60, {data.name}, {spec.steps} steps", spec, data


def resnet_task(options: argparse.Namespace) -> tuple[str, RunSpec, Dataset]:
    spec = spec_of("model=resnet", "data=cifar10", "batch_size=64", f"steps={options.steps}")
    data = random_dataset("random 3x32x32", (3, 32, 32), (4_096, 512, 512))
    return f"ResNet-8, batch norm, batch 64, {data.name}, {spec.steps} steps", spec, data


TASKS = {"mlp": mlp_task, "resnet": resnet_task}


def measure_runner(options: argparse.Namespace) -> list[dict[str, object]]:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.repeats} repeats")
    reports = []
    for name in options.tasks:
        task, spec, data = TASKS[name](options)
        reports.append(print_times(task, time_in_turn(available_loops(), spec, data, options.repeats)))
    return reports
