from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bnstudy.models.mlp import MLP
from bnstudy.models.rnn import RNN
from bnstudy.models.transformer import Transformer
from bnstudy.models.vgg import VGG
from bnstudy.norms.batch import BatchNorm, GhostBatchNorm, NoisyBatchNorm
from bnstudy.norms.explicit import ExplicitNorm
from bnstudy.norms.group import GroupNorm
from bnstudy.norms.weight import WeightNorm
from bnstudy.optim import SGD, AdamW
from bnstudy.probes.activations import Activations
from bnstudy.run import Evaluation, RunSpec
from bnstudy.train import stacked
from bnstudy.train.loop import start_stacked
from bnstudy.train.program import NotRecorded, Program, Recorder, tidy
from bnstudy.when import At
from tests.conftest import CPU, spec_of
from tests.train.helpers import assert_same_outcome, assert_same_state, train_all, train_until

aten = torch.ops.aten


def operations(function, *inputs: Tensor) -> list:
    """The operations of a function that remain after the rewritings."""
    with Recorder(inputs) as recorder:
        results = function(*inputs)
    graph = recorder.finish([results] if isinstance(results, Tensor) else list(results))
    tidy(graph)
    return [node.target for node in graph.nodes if node.op == "call_function"]


def test_a_program_changes_tensors_in_place():
    """Closed form: three steps of w <- w - lr (w - 1)."""
    w = torch.tensor([5.0])

    def step(lr: Tensor) -> dict[str, Tensor]:
        w.sub_(lr * (w - 1))
        return {"sum": w.sum()}

    program = Program(step, torch.tensor(0.1))
    for start, lr in ((0.0, 0.5), (3.0, 0.25)):
        w.fill_(start)
        for _ in range(3):
            total = program(torch.tensor(lr))["sum"]
        assert w.item() == pytest.approx(1 + (start - 1) * (1 - lr) ** 3)
        assert total.item() == pytest.approx(w.item())


def test_a_program_sees_what_a_tensor_holds_now_through_an_old_view():
    weight = torch.arange(6.0)
    program = Program(lambda x: x @ weight.view(2, 3), torch.ones(2))
    weight.mul_(2)
    assert program(torch.ones(2)).tolist() == [6, 10, 14]


def test_the_value_before_a_change_is_not_confused_with_that_after():
    w = torch.ones(2)

    def twice(x: Tensor) -> tuple[Tensor, ...]:
        before, copy = w * x, w.clone()
        w.add_(1)
        return before, copy, w * x

    program = Program(twice, torch.ones(2))
    assert [t.tolist() for t in program(torch.full((2,), 3.0))] == [[6, 6], [2, 2], [9, 9]]


def test_a_transposed_product_becomes_the_product_of_the_transposed():
    """(AB)' = B'A'. A product that is also used untransposed stays, and so does what a factor was before a change."""
    a, b = torch.randn(2, 3, 4), torch.randn(2, 4, 5)

    def products(a: Tensor, b: Tensor) -> Tensor:
        kept, own = torch.bmm(a, b), b + 1
        product = torch.bmm(a, own)
        own.mul_(0)
        return product.transpose(1, 2).sum(0) + kept.transpose(2, 1).sum(0) * kept.sum()

    torch.testing.assert_close(Program(products, a, b)(a, b), products(a, b))
    with Recorder((a, b)) as recorder:
        result = products(a, b)
    graph = recorder.finish([result])
    tidy(graph)
    transposed = [node.args[0].target for node in graph.nodes if node.target is aten.transpose.int]
    assert transposed.count(aten.bmm.default) == 1


def test_what_changes_nothing_and_what_is_computed_twice_is_left_out():
    def wasteful(x: Tensor) -> Tensor:
        y = x.view(3, 2).expand(3, 2).clone().transpose(0, 1).transpose(0, 1) * 1
        return torch.exp(y) + torch.exp(x.view(3, 2).detach())

    assert operations(wasteful, torch.randn(3, 2)) == [aten.exp.default, aten.add_.Tensor]


def test_values_that_nobody_needs_later_are_overwritten():
    """Not those of an input, of a tensor that stays, of a result, or of a view that is used later."""
    kept = torch.ones(2)

    def chain(x: Tensor) -> tuple[Tensor, ...]:
        own = x - 1
        row = own.view(1, 2)
        doubled, halved = own * 2, (x + kept) / 2
        return doubled, halved, doubled + 1, row * row, kept + 1

    assert operations(chain, torch.ones(2)) == [
        aten.sub.Tensor,
        aten.view.default,
        aten.mul.Tensor,
        aten.add.Tensor,
        aten.div_.Tensor,
        aten.add.Tensor,
        aten.mul_.Tensor,
        aten.add.Tensor,
    ]
    x = torch.tensor([3.0, 5.0])
    assert [t.flatten().tolist() for t in Program(chain, torch.ones(2))(x)] == [[4, 8], [2, 3], [5, 9], [4, 16], [2, 2]]
    assert x.tolist() == [3, 5]
    assert kept.tolist() == [1, 1]


def assert_same_results(function, *inputs: Tensor) -> None:
    """A program gives at each call what the function gives, and leaves the inputs as they are."""
    expected, program = function(*inputs), Program(function, *inputs)
    kept = [x.clone() for x in inputs]
    for _ in range(2):
        torch.testing.assert_close(program(*inputs), expected)
    assert all(torch.equal(x, before) for x, before in zip(inputs, kept, strict=True))


def test_the_views_of_a_copy_do_not_change_its_source():
    assert_same_results(lambda x: x.clone().view(2, 3) + 1, torch.ones(6))


def test_the_views_of_what_is_computed_twice_keep_their_values():
    def twice(x: Tensor) -> tuple[Tensor, Tensor]:
        once, again = x.exp(), x.exp()
        view = again.view(2, 3)
        return once + 1, view * 2

    assert_same_results(twice, torch.ones(6))


def test_a_copy_of_a_view_of_a_copy_keeps_the_value_before_a_change():
    w = torch.zeros(6)

    def copies(x: Tensor) -> Tensor:
        kept = w.clone().view(2, 3).clone()
        w.add_(1)
        return kept * x

    program = Program(copies, torch.ones(2, 3))
    w.zero_()
    assert [program(torch.ones(2, 3)).unique().tolist() for _ in range(2)] == [[0], [1]]


def test_a_changed_part_of_several_results_is_not_taken_for_an_equal_one():
    def changed(x: Tensor) -> tuple[Tensor, ...]:
        var, mean = torch.var_mean(x, 0)
        mean.add_(1)
        return var, mean, *torch.var_mean(x, 0)

    assert_same_results(changed, torch.arange(6.0))


def test_results_are_no_aliases_of_inputs_or_constants():
    w, x = torch.ones(2), torch.ones(2)
    of_constant, of_input = Program(lambda x: (w.clone(), x * 1), x)(x)
    w.add_(1)
    x.add_(1)
    assert [of_constant.tolist(), of_input.tolist()] == [[1, 1], [1, 1]]


def test_a_literal_that_is_changed_begins_anew_at_each_call():
    def scale(x: Tensor) -> Tensor:
        factor = torch.tensor([1.0, 2.0])
        factor.mul_(0.5)
        return x * factor

    assert_same_results(scale, torch.ones(2))


def test_complex_numbers_are_conjugated():
    """Torch conjugates lazily: by a view, and a copy that looks like its source."""

    def filtered(x: Tensor) -> Tensor:
        leaf = x.detach().requires_grad_()
        spectrum = torch.fft.rfft(leaf) * torch.tensor([1 + 2j, 3 - 1j, 2j])
        return torch.autograd.grad(torch.fft.irfft(spectrum, 5).square().sum(), leaf)[0]

    assert_same_results(filtered, torch.randn(3, 5, generator=torch.Generator().manual_seed(0)))


def test_a_view_that_the_new_layout_of_a_product_does_not_allow_is_a_copy():
    def flat(a: Tensor, b: Tensor) -> Tensor:
        return torch.bmm(a, b).transpose(1, 2).unsqueeze(0).permute(0, 1, 3, 2).view(-1)

    assert_same_results(flat, torch.ones(2, 3, 4), torch.ones(2, 4, 5))


def test_two_draws_are_two_draws():
    draws = Program(lambda x: (torch.rand_like(x), torch.rand_like(x)), torch.ones(100))
    one, two = draws(torch.ones(100))
    assert not torch.equal(one, two)


def test_the_statistics_of_a_batch_are_computed_once_in_both_passes():
    norm = nn.BatchNorm1d(4)
    explicit = ExplicitNorm(norm)

    def gradient(x: Tensor) -> Tensor:
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(explicit(leaf).square().sum(), leaf)[0]

    assert operations(gradient, torch.randn(8, 4)).count(aten.sum.dim_IntList) == 4


def test_a_number_that_python_reads_from_a_changing_tensor_is_refused():
    def by_value(x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x - 1

    with pytest.raises(NotRecorded, match="reads a number"):
        Program(by_value, torch.ones(2))
    count, fixed = torch.zeros(()), torch.ones(())
    with pytest.raises(NotRecorded, match="reads a number"):
        Program(lambda x: x * float(count.add_(1)), torch.ones(2))
    assert Program(lambda x: x * float(fixed), torch.ones(2))(torch.ones(2)).tolist() == [1, 1]


def test_shapes_that_depend_on_values_are_refused():
    with pytest.raises(NotRecorded):
        Program(lambda x: x[x > 0].sum(), torch.ones(2))
    rows = Program(lambda x: x[torch.tensor([1, 0])], torch.ones(2))
    assert rows(torch.tensor([2.0, 3.0])).tolist() == [3, 2]


# ---------------------------------------------------------------------------------------------------------- training


def runs(n: int, **changes) -> list[RunSpec]:
    """Runs that differ in seed and learning rate; smooth, so that rounding stays small."""
    plain = replace(spec_of(), batch_size=8, evaluation=Evaluation(At((0, 10))), norm=BatchNorm())
    probe = {name: replace(p, when=At((0, 1, 10))) for name, p in plain.probe.items()}
    smooth = replace(plain, probe=probe, model=MLP(depth=2, width=16, activation="gelu", dropout=0.1))
    return [replace(smooth, seed=seed, lr=0.01 * (1 + seed), **changes) for seed in range(n)]


@pytest.mark.parametrize(
    "change",
    [
        {"optim": SGD(momentum=0.9, weight_decay=0.01)},
        {"norm": GroupNorm(groups=2), "model": VGG(width=1 / 16, activation="gelu")},
        {"norm": GhostBatchNorm(size=4, eps=0.1)},
        {"norm": NoisyBatchNorm()},
        {"norm": WeightNorm()},
        {"trained": "norm"},
        {"model": Transformer(depth=1, width=16, activation="gelu", dropout=0.1)},
        {"model": RNN(width=8), "norm": BatchNorm(eps=0.1)},
    ],
    ids=["momentum", "convolutions", "ghost", "noisy", "weight", "only the norm trained", "transformer", "recurrent"],
)
def test_a_compiled_stack_agrees_with_one_that_is_not(change, few):
    """In float32; test_stacked explains the tolerance."""
    specs = runs(3, **change)
    compiled, plain = (start_stacked(specs, few, CPU, compiled=c) for c in (True, False))
    ours, theirs = train_all(compiled), train_all(plain)
    for run, spec in enumerate(specs):
        assert_same_outcome(ours[spec.run_id], theirs[spec.run_id], tolerance=1e-5)
        assert_same_state(compiled.engine.state(run), plain.engine.state(run), tolerance=1e-5)


@pytest.mark.parametrize("bad", [1, 3], ids=["rows stay", "fewer rows"])
def test_a_compiled_stack_resumes_identically_after_runs_have_left(bad, few):
    one, two, *others = runs(2 + bad, optim=AdamW(eps=1e-3))
    diverging = [replace(spec, lr=1e30) for spec in others]
    whole = train_all(start_stacked([one, *diverging, two], few, CPU))
    assert {whole[spec.run_id].status for spec in diverging} == {"diverged"}
    part = start_stacked([one, *diverging, two], few, CPU)
    train_until(part, 14)
    assert part.specs == [one, two]
    rest = start_stacked([one, two], few, CPU)
    rest.load([part.state(run) for run in range(2)])
    for run_id, outcome in train_all(rest).items():
        assert outcome.metrics.equals(whole[run_id].metrics)


def test_rows_that_stay_after_others_have_left_remember_what_probes_need(few):
    """Only the rows of runs that are measured have a memory."""
    probe = {"activity": Activations(when=At(tuple(range(0, 11, 2))))}
    specs = runs(8, probe=probe)
    whole, stack = train_all(start_stacked(specs, few, CPU)), start_stacked(specs, few, CPU)
    for step in (1, 5):
        train_until(stack, step)
        stack.leave([stack.specs[0].run_id])
    for run_id, outcome in train_all(stack).items():
        assert outcome.metrics.equals(whole[run_id].metrics)


def test_the_next_stack_is_evaluated_in_full_if_fewer_runs_were_before(few):
    """All images are evaluated at the end only, when runs have left."""
    one, two, *others = runs(8, evaluation=Evaluation(At(tuple(range(0, 20, 2))), images=50))
    diverging = [replace(spec, lr=1e30) for spec in (one, two)]
    before = start_stacked([*diverging, *others], few, CPU)
    train_all(before)
    specs = [one, two, *others]
    alone = train_all(start_stacked(specs, few, CPU))
    after = train_all(start_stacked(specs, few, CPU, successor_of=before.engine))
    for run_id, outcome in after.items():
        assert outcome.metrics.equals(alone[run_id].metrics)


def test_the_next_stack_evaluates_its_own_networks_where_that_is_not_recorded(few, monkeypatch):
    def record(function, *inputs: Tensor) -> Program:
        if not inputs:
            raise NotRecorded
        return Program(function, *inputs)

    monkeypatch.setattr(stacked, "Program", record)
    specs = runs(3, evaluation=Evaluation(At(tuple(range(0, 20, 2)))))
    before = start_stacked(specs, few, CPU)
    alone = train_all(before)
    for run_id, outcome in train_all(start_stacked(specs, few, CPU, successor_of=before.engine)).items():
        assert outcome.metrics.equals(alone[run_id].metrics)
