"""Recurrent networks, written out: torch's own have no rule for vmap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from bnstudy.models.base import ModelSpec
from bnstudy.models.layers import classifier
from bnstudy.models.sequences import Present, normalize_tokens, read_tokens, token_sizes
from bnstudy.norms.base import NormSpec
from bnstudy.norms.steps import StepNorm
from bnstudy.validation import ConfigError

State = tuple[Tensor, ...]
"""What a layer remembers: h [B, width] and, for an LSTM, c."""


@dataclass(frozen=True)
class RNN(ModelSpec):
    """Reads an image row by row, or `chunk` pixels at a time, and classifies it by its last state.

    The layers are layer1.input and layer1.recurrent, layer2.input, ..., out. A norm is put on one path or on both:

    - input: norm(W x), as in Laurent et al. 2016.
    - recurrent: norm(W h).
    - both: each path has a norm of its own, and an LSTM also one for the cell state in its output, h = o tanh(norm(c)),
      as in Cooijmans et al. 2017 and, with layer normalization, Ba et al. 2016.

    One norm is for all gates of a path. A path without a norm, or whose norm needs it, has a bias; of the two paths of
    cells that only use their sum, the input path. Images may end early (`data.length`): an absent step leaves the state
    as it is and takes no part in statistics.

    width: units of a layer's state.
    layers: number of recurrent layers.
    chunk: pixels in a step, in reading order; null for a row.
    norm_path: which path has the norm, see above.
    cell: the equations are those of nn.RNN, nn.GRU and nn.LSTM.
    activation: of cell=rnn only.
    """

    reads_lengths: ClassVar[bool] = True

    cell: Literal["rnn", "gru", "lstm"] = "lstm"
    width: int = 64
    layers: int = 1
    chunk: int | None = None
    norm_path: Literal["input", "recurrent", "both"] = "both"
    activation: Literal["tanh", "relu"] = "tanh"

    def check(self) -> None:
        self.require(self.width >= 1, "width", "at least 1")
        self.require(self.layers >= 1, "layers", "at least 1")
        self.require(self.chunk is None or self.chunk >= 1, "chunk", "at least 1, or null for rows")
        if self.cell != "rnn":
            self.require(self.activation == "tanh", "activation", f"tanh with model.cell={self.cell}")

    def build(self, norm: NormSpec, shape: tuple[int, int, int], classes: int) -> nn.Module:
        pixels = shape[1] * shape[2]
        if self.chunk is not None and pixels % self.chunk:
            raise self.refuse("chunk", f"a divisor of the {pixels} pixels of an image, or null for rows")
        if norm.position == "after":
            raise ConfigError(
                "norm.position=after is not allowed with model=rnn: the norm is put on the paths that model.norm_path "
                "names, before the activations of the cell; it must be before."
            )
        return RecurrentNet(self, norm, shape, classes)


class RecurrentNet(nn.Module):
    """[B, C, H, W] -> [B, classes]."""

    def __init__(self, spec: RNN, norm: NormSpec, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.chunk = spec.chunk
        steps, n_in = token_sizes(shape, spec.chunk)
        self.layers: list[str] = []
        for i in range(spec.layers):
            self.layers.append(f"layer{i + 1}")
            self.add_module(self.layers[-1], CELLS[spec.cell](spec, norm, n_in if i == 0 else spec.width, steps))
        self.out = classifier(spec.width, classes)

    def forward(self, x: Tensor) -> Tensor:
        states, mask = read_tokens(x, self.chunk)
        present = Present.of(mask)
        for name in self.layers:
            states = getattr(self, name)(states, present)
        return self.out(states[:, -1])


class PathNorms(nn.ModuleDict):
    """The norms of a recurrent layer by what they normalize: input, recurrent, cell."""


class RecurrentLayer(nn.Module):
    """Inputs [B, T, n_in] -> states [B, T, width].

    gates: how many pre-activations a unit has.
    sums_paths: whether the cell only uses the sum of the two paths, so that one bias is enough.
    states: how many tensors a layer remembers.
    """

    gates: ClassVar[int]
    sums_paths: ClassVar[bool] = True
    states: ClassVar[int] = 1
    input: nn.Module
    recurrent: nn.Module

    def __init__(self, spec: RNN, norm: NormSpec, n_in: int, steps: int) -> None:
        super().__init__()
        self.width, self.activation = spec.width, getattr(torch, spec.activation)
        channels = self.gates * spec.width
        self.norms = PathNorms()
        for path, fan_in in (("input", n_in), ("recurrent", spec.width)):
            is_normed = spec.norm_path in (path, "both")
            has_bias = (norm.keeps_bias or not is_normed) and not (path == "recurrent" and self.sums_paths)
            weight = nn.Linear(fan_in, channels, has_bias)
            self.add_module(path, norm.wrap(weight) if is_normed else weight)
            if is_normed:
                self.norms[path] = norm.build_steps(channels, steps, at_once=path == "input")
        if spec.norm_path == "both" and self.states == 2:
            self.norms["cell"] = norm.build_steps(spec.width, steps, at_once=False)

    def forward(self, x: Tensor, present: Present) -> Tensor:
        inputs = self.input(x)
        if "input" in self.norms:
            inputs = normalize_tokens(self.norms["input"], inputs, present)
        state: State = (x.new_zeros(len(x), self.width),) * self.states
        outputs = []
        steps = zip(inputs.unbind(1), present.mask.unsqueeze(2).unbind(1), present.share.unbind(1), strict=True)
        for step, (from_input, mask, share) in enumerate(steps):
            from_state = self.normalize("recurrent", self.recurrent(state[0]), share, step)
            new = self.update(from_input, from_state, state, share, step)
            state = tuple(now.where(mask, before) for now, before in zip(new, state, strict=True))
            outputs.append(state[0])
        for norm in self.norms.values():
            if isinstance(norm, StepNorm):
                norm.update_(present.images)
        return torch.stack(outputs, 1)

    def normalize(self, path: str, z: Tensor, share: Tensor, step: int) -> Tensor:
        """z [B, C] of one step behind the norm of the path, if there is one."""
        if path not in self.norms:
            return z
        norm = self.norms[path]
        return norm(z, share, step) if isinstance(norm, StepNorm) else norm(z)

    def update(self, from_input: Tensor, from_state: Tensor, state: State, share: Tensor, step: int) -> State:
        """The next state, from the pre-activations [B, gates * width] of the two paths."""
        raise NotImplementedError


class PlainLayer(RecurrentLayer):
    """h = tanh(W x + W' h)."""

    gates = 1

    def update(self, from_input: Tensor, from_state: Tensor, state: State, share: Tensor, step: int) -> State:  # noqa: ARG002
        return (self.activation(from_input + from_state),)


class GRULayer(RecurrentLayer):
    """Cho et al. 2014, as in torch: the reset gate multiplies the candidate's W' h. Gates: reset, update, candidate."""

    gates = 3
    sums_paths = False

    def update(self, from_input: Tensor, from_state: Tensor, state: State, share: Tensor, step: int) -> State:  # noqa: ARG002
        sizes = [2 * self.width, self.width]
        (x_gates, x_new), (h_gates, h_new) = from_input.split(sizes, 1), from_state.split(sizes, 1)
        reset, keep = torch.sigmoid(x_gates + h_gates).chunk(2, 1)
        new = torch.tanh(x_new + reset * h_new)
        return (torch.addcmul(new, keep, state[0] - new),)


class LSTMLayer(RecurrentLayer):
    """Hochreiter & Schmidhuber 1997 with forget gates (Gers et al. 2000). Gates: input, forget, output, candidate."""

    gates = 4
    states = 2

    def update(self, from_input: Tensor, from_state: Tensor, state: State, share: Tensor, step: int) -> State:
        gates, candidate = (from_input + from_state).split([3 * self.width, self.width], 1)
        write, keep, read = torch.sigmoid(gates).chunk(3, 1)
        cell = torch.addcmul(keep * state[1], write, torch.tanh(candidate))
        return read * torch.tanh(self.normalize("cell", cell, share, step)), cell


CELLS: dict[str, type[RecurrentLayer]] = {"rnn": PlainLayer, "gru": GRULayer, "lstm": LSTMLayer}
