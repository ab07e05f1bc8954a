from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bnstudy.models.rnn import RNN
from bnstudy.norms.batch import BatchNorm, GhostBatchNorm, NoisyBatchNorm, StepBatchNorm
from bnstudy.norms.group import InstanceNorm, LayerNorm
from bnstudy.norms.none import NoNorm
from bnstudy.norms.skipinit import SkipInit
from bnstudy.norms.weight import WeightNorm
from bnstudy.validation import ConfigError

SHAPE = (2, 6, 4)
TORCH = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
ORDER = {"rnn": [0], "gru": [0, 1, 2], "lstm": [0, 1, 3, 2]}
"""Torch's place of each of our gates."""


def reorder(weight: Tensor, cell: str) -> Tensor:
    """Our rows in torch's order of the gates: its own inverse."""
    parts = weight.chunk(len(ORDER[cell]))
    return torch.cat([parts[i] for i in ORDER[cell]])


def images(n: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def copy_into_torch(model: nn.Module, cell: str, width: int, layers: int, **options: str) -> nn.Module:
    theirs = TORCH[cell](SHAPE[0] * SHAPE[2], width, layers, batch_first=True, **options)
    state = dict(model.named_parameters())
    for i in range(layers):
        for path, short in (("input", "ih"), ("recurrent", "hh")):
            for kind in ("weight", "bias"):
                own = state.get(f"layer{i + 1}.{path}.{kind}")
                copy = getattr(theirs, f"{kind}_{short}_l{i}")
                copy.data.copy_(torch.zeros_like(copy) if own is None else reorder(own, cell))
    return theirs


def last_output(theirs: nn.Module, model: nn.Module, rows: Tensor) -> Tensor:
    return model.out(theirs(rows)[0][:, -1])


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", list(TORCH))
def test_without_a_norm_the_network_is_that_of_torch(cell, layers, activation):
    if activation == "relu" and cell != "rnn":
        return
    model = RNN(cell, width=7, layers=layers, activation=activation).build(NoNorm(), SHAPE, 3)
    options = {"nonlinearity": activation} if cell == "rnn" else {}
    theirs = copy_into_torch(model, cell, 7, layers, **options)
    rows = images().transpose(1, 2).permute(0, 1, 3, 2).flatten(2)
    torch.testing.assert_close(model(images()), last_output(theirs, model, rows))


@pytest.mark.parametrize("cell", list(TORCH))
def test_an_image_that_ends_early_gets_the_answer_of_its_rows(cell):
    for norm in (NoNorm(), LayerNorm(), StepBatchNorm()):
        model = RNN(cell, width=5, layers=2).build(norm, SHAPE, 3).eval()
        x = images()
        x[1, :, 2:] = torch.nan
        x[3, :, 4:] = torch.nan
        out = model(x)
        torch.testing.assert_close(out[1:2], model(short(x[1:2], 2)))
        torch.testing.assert_close(out[3:4], model(short(x[3:4], 4)))
        torch.testing.assert_close(out[[0, 2, 4]], model(images())[[0, 2, 4]])


def short(x: Tensor, rows: int) -> Tensor:
    """The image cut to its first rows: as many steps as the network then makes."""
    return x[:, :, :rows]


def naive_lstm_with_step_norms(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, list[list[tuple]]]]:
    """The logits in training and the statistics by path and step, image by image and step by step."""
    layer, width = model.layer1, model.layer1.width
    lengths = [int((~image.isnan().any(0).any(1)).sum()) for image in x]
    rows = x.movedim(1, -1).flatten(2)
    h = [torch.zeros(width) for _ in x]
    c = [torch.zeros(width) for _ in x]
    seen: dict[str, list] = {"input": [], "recurrent": [], "cell": []}

    def normalized(path: str, values: list[Tensor]) -> list[Tensor]:
        norm = layer.norms[path]
        mean = sum(values) / len(values)
        var = sum((v - mean) ** 2 for v in values) / len(values)
        seen[path].append((mean, var * len(values) / max(1, len(values) - 1), len(values)))
        return [norm.weight * (v - mean) / (var + norm.eps).sqrt() + norm.bias for v in values]

    for t in range(x.shape[2]):
        alive = [b for b in range(len(x)) if lengths[b] > t]
        if not alive:
            break
        from_x = normalized("input", [layer.input.weight @ rows[b, t] for b in alive])
        from_h = normalized("recurrent", [layer.recurrent.weight @ h[b] for b in alive])
        outs = []
        for b, zx, zh in zip(alive, from_x, from_h, strict=True):
            i, f, o, g = (zx + zh).chunk(4)
            c[b] = f.sigmoid() * c[b] + i.sigmoid() * g.tanh()
            outs.append(o.sigmoid())
        for b, o, normal in zip(alive, outs, normalized("cell", [c[b] for b in alive]), strict=True):
            h[b] = o * normal.tanh()
    return model.out(torch.stack(h)), seen


def test_an_lstm_with_statistics_of_each_step_equals_a_loop_over_images_and_steps():
    model = RNN("lstm", width=5).build(StepBatchNorm(momentum=0.3), SHAPE, 3)
    for p in model.parameters():
        nn.init.normal_(p, 0.5, 0.5)
    x = images(6)
    for image, rows in zip(x, (6, 2, 3, 4, 4, 5), strict=True):
        image[:, rows:] = torch.nan
    expected, seen = naive_lstm_with_step_norms(model, x)
    torch.testing.assert_close(model(x), expected)
    for path, of_steps in seen.items():
        norm = model.layer1.norms[path]
        for t, (mean, var, count) in enumerate(of_steps):
            if count >= 2:
                torch.testing.assert_close(norm.running_mean[t], 0.3 * mean)
                torch.testing.assert_close(norm.running_var[t], 0.7 + 0.3 * var)
        assert norm.num_batches_tracked.tolist() == [1, 1, 1, 1, 1, 0]
        assert norm.running_mean[5].tolist() == [0] * norm.running_mean.shape[1]


def test_batch_normalization_shared_by_the_steps_averages_their_statistics_on_the_recurrent_path():
    shared, per_step = (
        RNN("gru", width=5, norm_path="recurrent").build(norm, SHAPE, 3)
        for norm in (BatchNorm(momentum=1.0), StepBatchNorm(momentum=1.0))
    )
    per_step.load_state_dict(
        {name: p for name, p in shared.state_dict().items() if "running" not in name and "tracked" not in name},
        strict=False,
    )
    x = images(8)
    torch.testing.assert_close(shared(x), per_step(x))
    ours, steps = (model.layer1.norms["recurrent"] for model in (shared, per_step))
    torch.testing.assert_close(ours.running_mean[0], steps.running_mean.mean(0))
    torch.testing.assert_close(ours.running_var[0], steps.running_var.mean(0))
    assert ours.num_batches_tracked.tolist() == [1]


def test_steps_beyond_the_longest_training_image_use_the_statistics_of_the_last_step_that_has_any():
    model = RNN("rnn", width=5).build(StepBatchNorm(momentum=1.0), SHAPE, 3)
    x = images(8)
    x[:, :, 4:] = torch.nan
    model(x)
    model.eval()
    answer = model(images(3))
    for norm in model.layer1.norms.values():
        norm.running_mean[4:], norm.running_var[4:] = norm.running_mean[3], norm.running_var[3]
        norm.num_batches_tracked[4:] = 1
    assert torch.equal(answer, model(images(3)))


def test_a_norm_is_where_norm_path_says_and_replaces_the_bias_of_its_path():
    def parts(cell: str, path: str, norm=BatchNorm()) -> tuple[set[str], set[str]]:  # noqa: B008
        model = RNN(cell, norm_path=path).build(norm, SHAPE, 3)
        biases = {
            name.split(".")[1]
            for name, _ in model.layer1.named_parameters("l")
            if "norms" not in name and "bias" in name
        }
        return set(model.layer1.norms), biases

    assert parts("lstm", "both") == ({"input", "recurrent", "cell"}, set())
    assert parts("lstm", "input") == ({"input"}, set())
    assert parts("lstm", "recurrent") == ({"recurrent"}, {"input"})
    assert parts("gru", "both") == ({"input", "recurrent"}, set())
    assert parts("gru", "input") == ({"input"}, {"recurrent"})
    assert parts("gru", "both", NoNorm())[1] == {"input", "recurrent"}
    assert parts("rnn", "both", NoNorm())[1] == {"input"}


def test_the_scales_of_all_norms_start_at_gamma():
    model = RNN("lstm").build(StepBatchNorm(gamma=0.1), SHAPE, 3)
    for norm in model.layer1.norms.values():
        assert norm.weight.unique().tolist() == [pytest.approx(0.1)]


def test_a_weight_norm_replaces_the_weights_of_the_paths():
    model = RNN("gru", norm_path="recurrent").build(WeightNorm(), SHAPE, 3)
    assert {name for name, _ in model.named_parameters() if name.endswith(".g")} == {"layer1.recurrent.g"}


@pytest.mark.parametrize(
    ("norm", "keys", "reason"),
    [
        (GhostBatchNorm(), {}, "norm=ghost is not allowed on the recurrent path"),
        (NoisyBatchNorm(), {}, "norm=noisy_batch is not allowed on the recurrent path"),
        (InstanceNorm(), {}, "norm=instance is not allowed"),
        (BatchNorm(position="after"), {}, "norm.position=after is not allowed with model=rnn"),
        (NoNorm(), {"chunk": 5}, "model.chunk=5 is not allowed: it must be a divisor of the 24 pixels"),
    ],
)
def test_what_has_no_meaning_in_a_recurrent_network_is_refused(norm, keys, reason):
    with pytest.raises(ConfigError, match=reason):
        RNN(**keys).build(norm, SHAPE, 3)


@pytest.mark.parametrize("norm", [GhostBatchNorm(), NoisyBatchNorm()])
def test_ghost_batches_and_noise_are_allowed_on_the_input_path(norm):
    assert RNN(norm_path="input").build(norm, SHAPE, 3)(images(32)).shape == (32, 3)


def test_only_the_plain_cell_has_another_activation():
    with pytest.raises(ConfigError, match=r"model.activation=relu is not allowed: it must be tanh with model.cell=gru"):
        RNN("gru", activation="relu")


def test_statistics_of_each_step_are_refused_in_other_networks():
    with pytest.raises(ConfigError, match="norm=batch_per_step is not allowed with this network"):
        StepBatchNorm().build(8, "units")
    assert SkipInit().build_steps(8, 3, at_once=False)(torch.ones(1)) == 1


def test_a_norm_that_keeps_numbers_from_call_to_call_is_refused_step_by_step():
    class Counting(LayerNorm):
        def build(self, channels, layout):  # noqa: ARG002
            return nn.BatchNorm1d(channels)

    with pytest.raises(ConfigError, match="The norm Counting is not allowed step by step"):
        Counting().build_steps(8, 3, at_once=False)
