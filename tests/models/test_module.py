from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from bnstudy.inits import Keep
from bnstudy.models.module import Module
from bnstudy.norms.group import LayerNorm
from bnstudy.norms.keep import KeepNorm
from bnstudy.norms.none import NoNorm
from bnstudy.train.build import build_model, network_of
from bnstudy.validation import ConfigError, to_dict
from tests import plain_modules
from tests.conftest import spec_of

HERE = "tests.plain_modules"


def spec(target: str, *overrides: str, **kwargs):
    base = spec_of("norm=keep", "init=keep", *overrides)
    return replace(base, model=Module(target=f"{HERE}.{target}", kwargs=kwargs))


def built(run, dataset):
    return build_model(run, dataset)


def test_a_module_is_built_with_its_arguments(digits):
    model = built(spec("Cnn", width=3), digits)
    assert isinstance(model, plain_modules.Cnn)
    assert model.conv1.weight.shape == (3, 1, 3, 3)


def test_arguments_are_part_of_the_identity():
    wide, narrow = spec("Cnn", width=8), spec("Cnn", width=4)
    assert wide.run_id != narrow.run_id
    assert to_dict(wide)["model"]["kwargs"] == {"width": 8}
    assert wide.stack_key != narrow.stack_key


def test_the_command_line_sets_arguments_that_no_config_has():
    run = spec_of("model=module", "model.target=mine.Net", "norm=keep", "++model.kwargs={num_classes:10,p:null}")
    assert run.model == Module(target="mine.Net", kwargs={"num_classes": 10, "p": None})


@pytest.mark.parametrize(
    ("target", "kwargs", "reason"),
    [
        ("Absent", {}, r"model.target=tests.plain_modules.Absent cannot be imported"),
        ("pair", {}, "it returns a tuple"),
        ("HERE", {}, "cannot be imported|must be a class or a function"),
        ("Cnn", {"depth": 3}, r"with model.kwargs=\{depth: 3\} cannot be built: TypeError: .*'depth'"),
        (
            "Encoder",
            {"num_classes": 7},
            r"it returns \[2, 7\] .* must return \[2, 10\].* 'model.kwargs=\{num_classes: 10\}'",
        ),
        ("Unnormalized", {"classes": 7}, r"type 'model.kwargs=\{classes: 10\}'"),
    ],
)
def test_a_target_that_is_no_network_for_the_images_is_refused(target, kwargs, reason, digits):
    with pytest.raises(ConfigError, match=reason):
        built(spec(target, **kwargs), digits)


def test_a_module_that_cannot_take_the_images_is_refused():
    with pytest.raises(ConfigError, match=r"model.target=tests.plain_modules.Cnn cannot take batches of 3x8x8 images"):
        network_of(spec("Cnn"), (3, 8, 8), 10)


def test_a_module_without_target_is_refused():
    with pytest.raises(ConfigError, match=r"model=module needs model.target"):
        Module()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"norm": LayerNorm(position="after")}, "norm.position=after is not allowed with model=module"),
        ({"model": spec_of().model}, "norm=keep is not allowed with model=MLP"),
    ],
)
def test_norms_that_mean_nothing_are_refused(changes, reason, digits):
    with pytest.raises(ConfigError, match=reason):
        built(replace(spec("Cnn"), **changes), digits)


def test_lazy_modules_get_their_sizes_from_the_images(digits):
    model = built(spec("Lazy"), digits)
    assert model[1].weight.shape == (12, 64)
    assert int(model[2].num_batches_tracked) == 0
    assert isinstance(built(replace(spec("Lazy"), norm=LayerNorm()), digits)[2], nn.GroupNorm)
    with torch.device("meta"):
        assert network_of(spec("Lazy"), digits.shape, digits.classes)[1].weight.is_meta


@pytest.fixture
def trained(tmp_path):
    """A state dict of another training, and its file."""
    torch.manual_seed(7)
    state = plain_modules.Cnn().state_dict()
    torch.save(state, tmp_path / "weights.pt")
    return state, str(tmp_path / "weights.pt")


def with_weights(path: str, **changes):
    return replace(spec("Cnn"), model=Module(target=f"{HERE}.Cnn", weights=path), **changes)


def test_training_starts_from_the_weights_of_a_file(trained, digits):
    state, path = trained
    model = built(with_weights(path), digits)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    without = built(with_weights(path, norm=NoNorm()), digits)
    assert torch.equal(without.conv2.weight, state["conv2.weight"])


def test_weights_are_identified_by_content(trained, tmp_path):
    state, path = trained
    torch.save(state, tmp_path / "copy.pt")
    (tmp_path / "same.pt").write_bytes((tmp_path / "weights.pt").read_bytes())
    assert with_weights(path).run_id == with_weights(str(tmp_path / "same.pt")).run_id
    torch.save({name: value + 1 for name, value in state.items()}, tmp_path / "other.pt")
    assert with_weights(path).run_id != with_weights(str(tmp_path / "other.pt")).run_id
    assert with_weights(path).run_id != spec("Cnn").run_id
    assert "weights" not in to_dict(with_weights(path))["model"]
    assert "weights_checksum" not in to_dict(spec("Cnn"))["model"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.pop("out.bias"), "it lacks out.bias"),
        (lambda s: s.update(extra=torch.ones(1)), "it has, in addition, extra"),
        (
            lambda s: s.update({"out.weight": torch.ones(3, 8)}),
            r"it has other shapes of out.weight \(\[3, 8\], the network's is \[10, 8\]\)",
        ),
        (lambda s: s.update(epoch=3), "is no state dict but a"),
    ],
)
def test_weights_of_another_network_are_refused(change, reason, trained, digits):
    state, path = trained
    change(state)
    torch.save(state, path)
    with pytest.raises(ConfigError, match=reason):
        built(with_weights(path), digits)


def test_files_that_hold_no_weights_are_refused(trained, tmp_path, digits):
    _, path = trained
    with pytest.raises(ConfigError, match="there is no such file"):
        with_weights(str(tmp_path / "absent.pt"))
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(ConfigError, match="cannot be read as a state dict"):
        built(with_weights(str(tmp_path / "text.pt")), digits)
    torch.save(plain_modules.Cnn(), tmp_path / "whole.pt")
    with pytest.raises(ConfigError, match="cannot be read as a state dict"):
        built(with_weights(str(tmp_path / "whole.pt")), digits)
    with pytest.raises(ConfigError, match="type init=keep"):
        built(with_weights(path, init=spec_of().init), digits)


def test_keep_has_no_scale():
    with pytest.raises(ConfigError, match=r"init.gain=2 is not allowed"):
        Keep(gain=2)


def test_only_plain_modules_keep_norms():
    with pytest.raises(ConfigError, match="norm=keep is allowed with model=module only"):
        KeepNorm().build(3, "units")
