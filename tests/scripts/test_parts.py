from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from bnstudy.claims.arms import LEAST_RATES
from bnstudy.store.files import conf_dir
from scripts.published.parts import EXAMPLES, ON_CIFAR10, PARTS, Part, studies


def test_every_study_is_in_one_part_or_an_example() -> None:
    counts = Counter(name for part in PARTS if part.scale == "standard" for name in part.studies)
    assert counts == Counter({*studies()} - {*EXAMPLES})


def test_studies_on_digits_are_trained_on_mnist_too() -> None:
    """Else there is nothing to compare."""
    digits = next(part for part in PARTS if part.name == "digits")
    standard = {name for part in PARTS if part.scale == "standard" for name in part.studies}
    assert digits.scale == "quick"
    assert {*digits.studies} <= standard - {*ON_CIFAR10}


@pytest.mark.parametrize("study", [name for part in PARTS if part.scale == "standard" for name in part.studies])
def test_a_claim_is_judged_at_one_learning_rate_or_at_enough_to_choose_fairly(study: str) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        node = compose("config", [f"study={study}"]).study
    layers = (node.scales.standard, node.sweep, node.grid)
    rates = next(str(layer.lr) for layer in layers if "lr" in layer).split(",")
    assert not node.claims or len(rates) == 1 or len(rates) >= LEAST_RATES


def test_studies_on_other_images_have_commands_of_their_own_and_keep_their_names() -> None:
    part = Part("some", ("convergence", "cost", "course_mlp"))
    together, alone = part.commands(Path("D"), Path("C"), Path("W"))
    assert together == [
        "study=all", "study.names=[convergence,cost]", "scale=standard", "results_dir=W/standard", "data.root=D",
    ]  # fmt: skip
    assert {"study=course_mlp", "study.name=course_mlp", "data=image_folder", "data.root=C"} < {*alone}


def test_in_a_trial_each_study_has_a_command_of_its_own() -> None:
    lines = Part("some", ("convergence", "cost")).commands(Path("D"), Path("C"), Path("W"), ["seed=0"])
    assert [[*words[:1], *words[-2:]] for words in lines] == [
        ["study=convergence", "study.name=convergence", "seed=0"], ["study=cost", "study.name=cost", "seed=0"],
    ]  # fmt: skip


def test_studies_on_cifar10_are_studies() -> None:
    assert {*ON_CIFAR10} <= {*studies()}
