from __future__ import annotations

import gc
from dataclasses import replace

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from bnstudy.models.mlp import MLP
from bnstudy.models.vgg import VGG
from bnstudy.norms.batch import BatchNorm, GhostBatchNorm, NoisyBatchNorm
from bnstudy.norms.group import GroupNorm
from bnstudy.norms.weight import WeightNorm
from bnstudy.optim import SGD, AdamW
from bnstudy.run import Evaluation, RunSpec
from bnstudy.train import compiled
from bnstudy.train.compiled import Program, no_collections, write_transposed_products_directly
from bnstudy.train.stacked import StackedRun
from bnstudy.when import At
from tests.conftest import CPU, spec_of
from tests.train.courses import assert_same_course, assert_same_state, outcomes, train_until


@pytest.fixture
def compilations(monkeypatch):
    """One entry for each compilation."""
    made = []
    compile_ = compiled._compiled
    monkeypatch.setattr(compiled, "_compiled", lambda *arguments: made.append(arguments) or compile_(*arguments))
    return made


def runs(n: int, **changes) -> list[RunSpec]:
    """Runs that differ in seed and learning rate; smooth, so that rounding stays small."""
    plain = replace(spec_of(), batch_size=8, evaluation=Evaluation(At((0, 10))), norm=BatchNorm())
    probe = {name: replace(p, when=At((0, 1, 10))) for name, p in plain.probe.items()}
    smooth = replace(plain, probe=probe, model=MLP(depth=2, width=16, activation="gelu", dropout=0.1))
    return [replace(smooth, seed=seed, lr=0.01 * (1 + seed), **changes) for seed in range(n)]


def assert_agrees(specs, dataset, program: Program) -> None:
    """With the stack that is not compiled, in float32: see test_stacked on the tolerance."""
    stack, plain = StackedRun(specs, dataset, CPU, program), StackedRun(specs, dataset, CPU)
    ours, theirs = outcomes(stack), outcomes(plain)
    for run, spec in enumerate(specs):
        assert_same_course(ours[spec.run_id], theirs[spec.run_id], tolerance=1e-5)
        assert_same_state(stack.state(run), plain.state(run), tolerance=1e-5)


@pytest.mark.slow
def test_one_program_serves_all_stacks_of_a_kind(few, compilations):
    specs, program = runs(7, optim=SGD(momentum=0.9, weight_decay=0.01)), Program(4)
    assert_agrees(specs[:4], few, program)
    assert_agrees(specs[4:], few, program)  # three runs, in four rows
    assert_agrees([replace(specs[0], optim=SGD(momentum=0.5, weight_decay=0.1))], few, program)
    assert len(compilations) == 1


@pytest.mark.slow
def test_compiled_stacks_lose_runs_stop_and_go_on_like_others(few, compilations):
    one, bad, two = runs(3, optim=AdamW(eps=1e-3))
    bad, program = replace(bad, lr=1e30), Program(3)
    whole = outcomes(StackedRun([one, bad, two], few, CPU, program))
    assert whole[bad.run_id].status == "diverged"
    part = StackedRun([one, bad, two], few, CPU, program)
    train_until(part, 14)
    assert part.specs == [one, two]
    rest = StackedRun([one, two], few, CPU, program)
    rest.load([part.state(run) for run in range(2)])
    for run_id, outcome in outcomes(rest).items():
        assert outcome.metrics.equals(whole[run_id].metrics)
    assert len(compilations) == 1


@pytest.mark.slow
def test_convolutions_compile_too(few):
    specs = runs(2, norm=GroupNorm(groups=2), model=VGG(width=1 / 16, activation="gelu"))
    assert_agrees(specs, few, Program(2))


@pytest.mark.slow
@pytest.mark.parametrize(
    "norm", [GhostBatchNorm(size=4, eps=0.1), NoisyBatchNorm(), WeightNorm()], ids=lambda norm: norm.label
)
def test_norms_that_are_not_torchs_compile_too(norm, few):
    assert_agrees(runs(2, norm=norm), few, Program(2))


def test_a_program_changes_its_inputs_in_place_and_takes_what_is_passed(compilations):
    """Closed form: three steps of w <- w - lr (w - 1), from other tensors each time."""

    def step(w, lr):
        w.sub_(lr * (w - 1))
        return w.sum()

    program = Program(1)
    for start, lr in ((0.0, 0.5), (3.0, 0.25)):
        w = torch.tensor([start])
        for _ in range(3):
            total = program(step, (w, torch.tensor(lr)))
        assert w.item() == pytest.approx(1 + (start - 1) * (1 - lr) ** 3)
        assert total.item() == pytest.approx(w.item())
    assert len(compilations) == 1


def test_a_transposed_product_is_written_as_the_product_of_the_transposed():
    """(AB)' = B'A'; one that is also used as it stands is left alone."""
    a, b = torch.randn(2, 3, 4), torch.randn(2, 4, 5)

    def products(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        kept = torch.bmm(a, b)
        return torch.bmm(a, b + 1).transpose(1, 2).sum(0) + kept.transpose(2, 1).sum(0) * kept.sum()

    traced = make_fx(products)(a, b)
    write_transposed_products_directly(traced)
    torch.testing.assert_close(traced(a, b), products(a, b))
    transposed = [n.args[0].target for n in traced.graph.nodes if n.target is torch.ops.aten.transpose.int]
    assert transposed.count(torch.ops.aten.bmm.default) == 1


def test_collections_are_back_on_after_compiling():
    with no_collections():
        assert not gc.isenabled()
    assert gc.isenabled()
