"""Recurrent networks and images that end early, in both engines."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bnstudy.data.base import Length
from bnstudy.data.dataset import Split
from bnstudy.models.rnn import RNN
from bnstudy.models.sequences import read_tokens
from bnstudy.models.transformer import Transformer
from bnstudy.norms.batch import BatchNorm, GhostBatchNorm, StepBatchNorm
from bnstudy.norms.group import GroupNorm, LayerNorm
from bnstudy.norms.none import NoNorm
from bnstudy.norms.weight import WeightNorm
from bnstudy.probes.normalization import NormInternals
from bnstudy.run import Evaluation, RunSpec
from bnstudy.train.loop import start_serial, start_stacked
from bnstudy.validation import ConfigError
from bnstudy.when import At
from tests.conftest import CPU, spec_of
from tests.train.helpers import (
    ENGINES,
    assert_identical,
    assert_same_outcome,
    assert_same_state,
    train_all,
    train_one,
    train_until,
    values_by_step,
)

NORMS = {
    "none": NoNorm(),
    "batch": BatchNorm(eps=1e-3),
    "batch_per_step": StepBatchNorm(eps=1e-3, momentum=None),
    "layer": LayerNorm(),
    "group": GroupNorm(groups=2, eps=0.1),
    "weight": WeightNorm(),
}


def spec(**changes) -> RunSpec:
    """8 steps of a small recurrent network on images of 3 to 6 rows, without probes."""
    plain = replace(spec_of(), batch_size=8, steps=8, evaluation=Evaluation(At((0, 5))), probe={})
    data = replace(plain.data, length=Length(min=3, max=6))
    return replace(plain, **{"model": RNN("gru", width=6), "data": data, "lr": 2**-4, **changes})


def assert_agreement(kind: RunSpec, dataset) -> None:
    specs = [kind, replace(kind, seed=1, lr=2 * kind.lr)]
    stack = start_stacked(specs, dataset, CPU)
    stacked = train_all(stack)
    for run, one in enumerate(specs):
        alone = start_serial(one, dataset, CPU)
        assert_same_outcome(stacked[one.run_id], train_one(alone), 1e-6)
        assert_same_state(stack.engine.state(run), alone.engine.state(0), 1e-9)


@pytest.mark.parametrize("norm", list(NORMS))
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_the_engines_agree_for_all_cells_and_norms(cell, norm, wide):
    assert_agreement(spec(model=RNN(cell, width=6), norm=NORMS[norm]), wide)


@pytest.mark.parametrize("norm", ["batch", "batch_per_step", "layer"])
def test_the_engines_agree_for_a_transformer(norm, wide):
    assert_agreement(spec(model=Transformer(depth=1, width=4, heads=2), norm=NORMS[norm]), wide)


def test_the_engines_agree_for_layers_chunks_and_the_other_paths(wide):
    assert_agreement(spec(model=RNN("lstm", 6, layers=2, chunk=16, norm_path="recurrent"), norm=BatchNorm()), wide)
    assert_agreement(spec(model=RNN("rnn", 6, norm_path="input", activation="relu"), norm=GhostBatchNorm(size=4)), wide)


@pytest.mark.parametrize("engine", list(ENGINES))
def test_a_run_on_images_that_end_early_resumes_bit_for_bit(engine, few):
    specs = [spec(norm=StepBatchNorm()), spec(norm=StepBatchNorm(), seed=1)][: 1 if engine == "serial" else 2]
    whole = train_all(ENGINES[engine](specs, few))
    stopped = ENGINES[engine](specs, few)
    train_until(stopped, 5)
    resumed = ENGINES[engine](specs, few)
    resumed.load([stopped.state(run) for run in range(len(specs))])
    for run_id, outcome in train_all(resumed).items():
        assert_identical(outcome, whole[run_id])


def test_arms_of_a_seed_get_the_same_lengths_and_seeds_others(few):
    def lengths(**changes) -> list[int]:
        x, _ = start_serial(spec(**changes), few, CPU).engine.batch(3)
        return (~x[:, 0, :, 0].isnan()).sum(1).tolist()

    assert lengths() == lengths(norm=LayerNorm(), model=RNN("lstm", width=9))
    assert lengths() != lengths(seed=1)
    assert set(lengths()) <= {3, 4, 5, 6}


@pytest.mark.parametrize("engine", list(ENGINES))
def test_the_final_accuracy_is_measured_at_each_length(engine, few):
    kind = spec(norm=StepBatchNorm())
    training = ENGINES[engine]([kind], few)
    outcome = train_one(training)
    model = start_serial(kind, few, CPU).engine.model
    end = training.engine.state(0)
    torch.nn.utils.vector_to_parameters(end["params"], model.parameters())
    model.load_state_dict(
        {k: v for k, v in end["buffers"].items() if "norms" in k and k in model.state_dict()}, strict=False
    )
    model.eval()
    for rows in (1, 3, 4, 5, 6, 7, 8):
        right = model(few.test.x[:, :, :rows]).argmax(1) == few.test.y
        measured = values_by_step(outcome.metrics, "test", "accuracy_at_length", f"rows{rows}")
        assert measured == {8: pytest.approx(right.double().mean().item())}
    assert set(values_by_step(outcome.metrics, "test", "accuracy")) == {0, 5, 8}
    full = values_by_step(outcome.metrics, "test", "accuracy_at_length", "rows8")[8]
    assert full == values_by_step(outcome.metrics, "test", "accuracy")[8]


def test_test_lengths_may_be_given_also_for_training_on_whole_images(few):
    plain = spec_of().data
    outcome = train_one(start_serial(spec(data=replace(plain, test_lengths=[8, 2])), few, CPU))
    layers = outcome.metrics.to_pandas().query("metric == 'accuracy_at_length'").layer
    assert layers.tolist() == ["rows2", "rows8"]
    without = train_one(start_serial(spec(data=plain), few, CPU)).metrics.to_pandas()
    assert "accuracy_at_length" not in set(without.metric)


def test_absent_rows_are_refused_where_they_have_no_meaning(few):
    with pytest.raises(ConfigError, match=r"data.length is not allowed with model=MLP, which is not known"):
        spec(model=spec_of().model)
    cut = Split(few.test.x[:, :, :4], few.test.y)
    with pytest.raises(ConfigError, match=r"data.length.max=6 is not allowed: it must be at most 4, the rows of"):
        start_serial(spec(), replace(few, train=cut, val=cut, test=cut), CPU)


def test_a_length_reads_as_on_the_command_line_and_leaves_other_ids_alone():
    kind = spec_of("model=rnn", "data.length={min: 4, max: 8}", "data.test_lengths=[2,8]")
    assert kind.data.length == Length(4, 8)
    assert kind.data.test_lengths == (2, 8)
    with pytest.raises(ConfigError, match=r"data.length=\{min: 4\} is not allowed: it must be \{min: ..., max: ...\}"):
        spec_of("model=rnn", "data.length={min: 4}")
    with pytest.raises(ConfigError, match=r"data.length.max=3 is not allowed: it must be at least data.length.min=4"):
        spec_of("model=rnn", "data.length={min: 4, max: 3}")


def test_the_distance_from_precise_statistics_is_of_those_that_evaluation_uses(few):
    """After images of 4 rows, the steps behind them use the statistics of the fourth."""
    short = replace(spec().data, length=Length(min=4, max=4))
    probe = {"norm_internals": NormInternals(when=At((8,)), samples=16, precise_samples=16)}
    kind = spec(norm=StepBatchNorm(), data=short, probe=probe)
    training = start_serial(kind, few, CPU)
    outcome = train_one(training)
    buffers = training.engine.buffers()
    norm = training.engine.model.get_submodule("layer1.norms.input")
    tokens = training.engine.model.layer1.input(read_tokens(few.train.x[training.engine.probe_index[:16]])[0])
    parts = torch.stack([torch.stack([part.mean(0), part.var(0, correction=0)]) for part in tokens.split(8)])
    var = parts[:, 1].mean(0) + parts[:, 0].var(0, correction=0)
    used = buffers["layer1.norms.input.running_mean"][[0, 1, 2, 3, 3, 3, 3, 3]]
    expected = (used - parts[:, 0].mean(0)).norm() / var.sum().sqrt()
    assert norm.num_batches_tracked.tolist() == [8] * 4 + [0] * 4
    measured = values_by_step(outcome.metrics, "", "running_mean_distance", "layer1.norms.input")
    assert measured == {8: pytest.approx(expected.item(), rel=1e-4)}
