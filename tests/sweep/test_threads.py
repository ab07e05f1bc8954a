from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from bnstudy.config.build import build_request
from bnstudy.store.runs import Store
from bnstudy.sweep import command
from bnstudy.sweep.command import limit_threads, max_threads, prepare
from bnstudy.sweep.cost import Method, NetworkCost
from bnstudy.sweep.machine import set_up_torch
from bnstudy.sweep.settings import Settings
from bnstudy.sweep.threads import keep_settings, useful_threads
from tests.conftest import spec_of
from tests.sweep.test_plan import point, stacks_of

SERIAL = Method("serial", 1, compiled=False, norms_vary=False)


def mlp(*sizes: int) -> NetworkCost:
    products = sum(a * b for a, b in pairwise(sizes))
    return NetworkCost(products, sum(sizes[1:]), products, convolves=False)


@pytest.mark.parametrize(
    ("sizes", "batch", "threads"),
    [
        ((64, 64, 64, 64, 64, 10), 32, 1),
        ((784, 100, 100, 100, 10), 60, 1),
        ((784, 512, 512, 10), 64, 3),
    ],
)
def test_small_networks_train_with_one_thread_and_large_ones_with_several(sizes, batch, threads):
    assert useful_threads(spec_of(f"batch_size={batch}"), mlp(*sizes), SERIAL) == threads


def test_the_matrices_of_an_unrolled_network_count_once():
    """Its many small products follow each other."""
    once = mlp(784, 512, 512, 10)
    unrolled = NetworkCost(once.params, once.units * 28, once.products * 28, convolves=False, repeats=28)
    spec = spec_of("batch_size=64")
    assert useful_threads(spec, unrolled, SERIAL) == useful_threads(spec, once, SERIAL)


@pytest.mark.parametrize(("chosen", "most", "threads"), [(None, 2, 2), (None, 16, 13), (8, 2, 8), (1, 16, 1)])
def test_a_stack_gets_the_threads_that_the_user_chose_or_else_a_workers(chosen, most, threads, tmp_path):
    stacks = stacks_of([point("model.depth=2", "model.width=1750", f"results_dir={tmp_path}")])
    assert [stack.threads for stack in limit_threads(stacks, chosen, most)] == [threads]


@pytest.mark.parametrize(("executor", "workers", "most"), [("processes", 4, 4), ("processes", 32, 1), ("slurm", 9, 2)])
def test_workers_share_the_cores_of_a_machine(executor, workers, most, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "cores", lambda: 16)
    assert max_threads(build_request([point(f"results_dir={tmp_path}")]), executor, workers) == most


@pytest.mark.parametrize(("threads", "recorded"), [("null", 1), ("2", 2)])
def test_a_command_trains_a_small_network_with_one_thread_unless_the_user_chose_another_number(
    threads, recorded, tmp_path
):
    with keep_settings():
        torch.set_num_threads(2)
        request = build_request([point("model.width=8", f"threads={threads}", f"results_dir={tmp_path}")])
        command.run(request)
        assert torch.get_num_threads() == 2
    [run_id] = Store(tmp_path).finished()
    assert Store(tmp_path).summary(run_id)["threads"] == recorded


def test_settings_that_training_on_a_gpu_needs_are_restored():
    def settings() -> tuple[bool, ...]:
        cudnn = torch.backends.cudnn
        return torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, cudnn.allow_tf32

    before = settings()
    with keep_settings():
        torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = True
        set_up_torch(Settings(), torch.device("cuda"))
        assert settings() == (True, False, False)
    assert settings() == before


def test_the_threads_of_a_run_do_not_depend_on_the_runs_that_are_stored(tmp_path):
    points = [point("model.width=8", f"seed={seed}", f"results_dir={tmp_path}") for seed in (0, 1, 2)]
    alone, *_ = prepare(build_request(points)).stacks
    command.run(build_request(points[:2]))
    assert {stack.threads for stack in prepare(build_request(points)).stacks} == {alone.threads}
