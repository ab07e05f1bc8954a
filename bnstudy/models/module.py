"""Plain modules: networks that know nothing of bnstudy."""

from __future__ import annotations

import hashlib
import inspect
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bnstudy.models.attention import make_attention_explicit
from bnstudy.models.base import ModelSpec
from bnstudy.models.construction import materialize
from bnstudy.models.swap import swap_norms
from bnstudy.models.trial import trial
from bnstudy.norms.base import NormSpec
from bnstudy.norms.keep import KeepNorm
from bnstudy.validation import ADDED, BESIDE, ConfigError, import_object, show


@dataclass(frozen=True)
class Module(ModelSpec):
    """Any `nn.Module` from images [B, C, H, W] to logits [B, classes].

    target: dotted name of its class, or of a function that returns it.
    kwargs: their arguments.
    weights: a file with a state dict, which replaces the initial weights; only with init=keep.
    weights_checksum: SHA-256 of this file, which stands for it in the run's identity.
    """

    target: str | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = field(default=None, metadata=BESIDE)
    weights_checksum: str | None = field(default=None, metadata=ADDED)

    def canonical(self) -> Mapping[str, object]:
        if self.weights is None:
            return {}
        path = os.path.abspath(self.weights)
        if not os.path.isfile(path):
            raise ConfigError(f"model.weights={show(self.weights)} is not allowed: there is no such file.")
        return {"weights": path, "weights_checksum": self.weights_checksum or checksum(path, os.stat(path).st_mtime_ns)}

    @property
    def label(self) -> str:
        return str(self.target).rpartition(".")[2]

    def build(self, norm: NormSpec, shape: tuple[int, int, int], classes: int) -> nn.Module:
        if norm.position == "after":
            raise ConfigError(
                "norm.position=after is not allowed with model=module: a norm takes the place of one of the module's "
                "own; leave norm.position out."
            )
        device = torch.get_default_device()
        with torch.device("cpu"):  # constructors may read values, which torch's meta device does not have
            model = self.construct()
            self.check_output(model, shape, classes)
            if self.weights_checksum is not None:
                self.load_weights_(model)
            make_attention_explicit(model)
            if not isinstance(norm, KeepNorm):
                swap_norms(model, norm, shape, f"model.target={self.target}")
        return model.to(device)

    def construct(self) -> nn.Module:
        """The module as its target makes it."""
        if not self.target:
            raise ConfigError(
                "model=module needs model.target, the dotted name of a class or function that returns an nn.Module, "
                "such as model.target=torchvision.models.resnet18."
            )
        target = import_object(str(self.target), f"model.target={self.target}")
        given = f"model.target={self.target}" + (
            f" with model.kwargs={show_mapping(self.kwargs)}" if self.kwargs else ""
        )
        if not callable(target) or isinstance(target, nn.Module):
            raise ConfigError(f"{given} is not allowed: it must be a class or a function that returns an nn.Module.")
        try:
            model = target(**self.kwargs)
        except ConfigError:
            raise
        except Exception as error:  # any code of the user's
            raise ConfigError(f"{given} cannot be built: {type(error).__name__}: {error}") from error
        if not isinstance(model, nn.Module):
            raise ConfigError(
                f"{given} is not allowed: it returns a {type(model).__name__}, and must return an nn.Module."
            )
        return model

    def check_output(self, model: nn.Module, shape: tuple[int, int, int], classes: int) -> None:
        """Raises ConfigError unless the module maps images to logits. Gives lazy modules their sizes."""
        given = f"model.target={self.target}"
        try:
            materialize(model, shape)
            with trial(model):
                out = model(torch.zeros(2, *shape))
        except ConfigError:
            raise
        except Exception as error:  # any code of the user's
            size = "x".join(map(str, shape))
            raise ConfigError(
                f"{given} cannot take batches of {size} images: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(out, Tensor):
            raise ConfigError(
                f"{given} is not allowed: it returns a {type(out).__name__}, and must return a tensor of logits."
            )
        if out.shape != (2, classes):
            name = self.argument_of_classes()
            advice = f"type 'model.kwargs={{{name}: {classes}}}'" if name else "let its last layer have as many outputs"
            raise ConfigError(
                f"{given} is not allowed: for 2 images it returns {list(out.shape)} numbers, and must return "
                f"[2, {classes}], one for each class; {advice}."
            )

    def argument_of_classes(self) -> str:
        """The argument of the target that seems to be the number of classes; "" if none does."""
        target = import_object(str(self.target), f"model.target={self.target}")
        known = ("num_classes", "n_classes", "classes", "num_labels", "out_features", "n_out")
        try:
            parameters = inspect.signature(target).parameters
        except (TypeError, ValueError):
            return ""
        takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        return next((name for name in known if name in parameters), "num_classes" if takes_any else "")

    def load_weights_(self, model: nn.Module) -> None:
        """Replace all parameters and buffers by those of the file."""
        if self.weights is None:
            raise ConfigError("model.weights is needed: the run starts from the weights of a file.")
        given = f"model.weights={show(self.weights)}"
        if checksum(self.weights, os.stat(self.weights).st_mtime_ns) != self.weights_checksum:
            raise ConfigError(f"{given} has changed since the runs were planned: start the command again.")
        try:
            state = torch.load(self.weights, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
            reason = str(error).partition("\n")[0]
            raise ConfigError(
                f"{given} cannot be read as a state dict: {reason} Save it by torch.save(model.state_dict(), file)."
            ) from None
        if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
            inner = f" with the keys {some(state)}" if isinstance(state, Mapping) else ""
            raise ConfigError(
                f"{given} is no state dict but a {type(state).__name__}{inner}: save it by "
                "torch.save(model.state_dict(), file)."
            )
        own = model.state_dict()
        problems = {
            "lacks": [name for name in own if name not in state],
            "has, in addition,": [name for name in state if name not in own],
            "has other shapes of": [
                f"{name} ({list(state[name].shape)}, the network's is {list(value.shape)})"
                for name, value in own.items()
                if name in state and state[name].shape != value.shape
            ],
        }
        if any(problems.values()):
            text = "; it ".join(f"{problem} {some(names)}" for problem, names in problems.items() if names)
            raise ConfigError(f"{given} does not fit model.target={self.target}: it {text}.")
        model.load_state_dict(state)


def some(names: Any) -> str:
    """The first names of a list."""
    names = [str(name) for name in names]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def show_mapping(values: Mapping[str, Any]) -> str:
    return f"{{{', '.join(f'{name}: {show(value)}' for name, value in values.items())}}}"


@cache
def checksum(path: str, modified: int) -> str:  # noqa: ARG001
    """SHA-256 of a file that was last `modified` at this time."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
