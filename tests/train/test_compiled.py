from __future__ import annotations

import gc
from dataclasses import replace

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from bnstudy.models.inception import Inception
from bnstudy.models.mlp import MLP
from bnstudy.models.transformer import Transformer
from bnstudy.models.vgg import VGG
from bnstudy.norms.batch import BatchNorm, GhostBatchNorm, NoisyBatchNorm
from bnstudy.norms.group import GroupNorm, LayerNorm
from bnstudy.norms.weight import WeightNorm
from bnstudy.optim import SGD, AdamW
from bnstudy.run import Evaluation, RunSpec
from bnstudy.train import compiled
from bnstudy.train.compiled import Program, no_garbage_collection, write_transposed_products_directly
from bnstudy.train.loop import start_stacked
from bnstudy.when import At
from tests.conftest import CPU, spec_of
from tests.train.helpers import assert_same_outcome, assert_same_state, train_all, train_until


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
    """The compiled stack agrees with one that is not compiled, in float32; test_stacked explains the tolerance."""
    stack, plain = start_stacked(specs, dataset, CPU, program), start_stacked(specs, dataset, CPU)
    ours, theirs = train_all(stack), train_all(plain)
    for run, spec in enumerate(specs):
        assert_same_outcome(ours[spec.run_id], theirs[spec.run_id], tolerance=1e-5)
        assert_same_state(stack.engine.state(run), plain.engine.state(run), tolerance=1e-5)


@pytest.mark.slow
def test_one_program_serves_all_stacks_of_a_kind(few, compilations):
    specs, program = runs(7, optim=SGD(momentum=0.9, weight_decay=0.01)), Program(4)
    assert_agrees(specs[:4], few, program)
    assert_agrees(specs[4:], few, program)  # three runs, in four rows
    assert_agrees([replace(specs[0], optim=SGD(momentum=0.5, weight_decay=0.1))], few, program)
    assert len(compilations) == 1


@pytest.mark.slow
def test_a_compiled_stack_resumes_identically_after_a_run_has_left(few, compilations):
    one, bad, two = runs(3, optim=AdamW(eps=1e-3))
    bad, program = replace(bad, lr=1e30), Program(3)
    whole = train_all(start_stacked([one, bad, two], few, CPU, program))
    assert whole[bad.run_id].status == "diverged"
    part = start_stacked([one, bad, two], few, CPU, program)
    train_until(part, 14)
    assert part.specs == [one, two]
    rest = start_stacked([one, two], few, CPU, program)
    rest.load([part.state(run) for run in range(2)])
    for run_id, outcome in train_all(rest).items():
        assert outcome.metrics.equals(whole[run_id].metrics)
    assert len(compilations) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"norm": GroupNorm(groups=2), "model": VGG(width=1 / 16, activation="gelu")},
        {"norm": GhostBatchNorm(size=4, eps=0.1)},
        {"norm": NoisyBatchNorm()},
        {"norm": WeightNorm()},
        {"trained": "norm"},
        {"model": Transformer(depth=1, width=16, activation="gelu", dropout=0.1), "norm": LayerNorm()},
        {"model": Transformer(depth=1, width=16, activation="gelu", order="post")},
        {"model": Inception(width=1 / 64, activation="gelu"), "steps": 5},
    ],
    ids=["convolutions", "ghost", "noisy", "weight", "only the norm trained", "transformer", "post", "inception"],
)
def test_a_compiled_stack_agrees_with_an_eager_one(change, few):
    assert_agrees(runs(2, **change), few, Program(2))


def test_a_program_changes_its_inputs_in_place(compilations):
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


def test_a_transposed_product_becomes_the_product_of_the_transposed():
    """(AB)' = B'A'. A product that is also used untransposed stays."""
    a, b = torch.randn(2, 3, 4), torch.randn(2, 4, 5)

    def products(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        kept = torch.bmm(a, b)
        return torch.bmm(a, b + 1).transpose(1, 2).sum(0) + kept.transpose(2, 1).sum(0) * kept.sum()

    traced = make_fx(products)(a, b)
    write_transposed_products_directly(traced)
    torch.testing.assert_close(traced(a, b), products(a, b))
    transposed = [n.args[0].target for n in traced.graph.nodes if n.target is torch.ops.aten.transpose.int]
    assert transposed.count(torch.ops.aten.bmm.default) == 1


def test_garbage_collection_resumes_after_compiling():
    with no_garbage_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
