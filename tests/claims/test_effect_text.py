from __future__ import annotations

import math

import pytest
import yaml

from bnstudy.claims.claim import claim_of, load_claims
from bnstudy.claims.effect_text import describe_delta, describe_effect
from bnstudy.store.files import conf_dir
from tests.sweeps import NODE

NAMES = sorted(path.stem for path in (conf_dir() / "claim").glob("*.yaml"))
RATIO = {**NODE, "metric": "updates_to_target", "better": "lower", "delta": 1.25, "unit": "times fewer steps"}


@pytest.mark.parametrize(
    ("name", "effect", "text"),
    [
        ("faster_convergence", math.log(2.9), "2.9x fewer steps"),
        ("faster_convergence", -math.log(2.4), "2.4x more steps"),
        ("higher_learning_rates", -math.log(1.06), "0.94x the learning rate"),
        ("dead_relus", 12.34, "12 points fewer units that died"),
        ("dead_relus", -12.34, "12 points more units that died"),
    ],
)
def test_an_effect_against_the_claim_is_turned_round(name, effect, text):
    assert describe_effect(load_claims([name])[0], effect).short == text


def test_an_effect_that_is_turned_round_has_its_interval_and_bound_turned_round():
    (claim,) = load_claims(["faster_convergence"])
    text = describe_effect(claim, math.log(0.5), math.log(0.4), math.log(0.8), "at most")
    assert text.full == "at least 2.0x more steps (1.2 to 2.5)"


@pytest.mark.parametrize(
    ("node", "effect", "text"),
    [
        (RATIO, math.log(2.9), "2.9x fewer steps"),
        (RATIO, -math.log(2.4), "2.4x the steps to the target"),
        ({**RATIO, "better": "higher", "unit": "times more steps"}, -math.log(2), "0.50x the steps to the target"),
        (NODE, -1.2, "-1.2 points"),
    ],
)
def test_a_claim_of_ones_own_without_words_for_the_other_direction_reads_well(node, effect, text):
    assert describe_effect(claim_of(node, "own"), effect).short == text


@pytest.mark.parametrize("name", NAMES)
def test_each_claim_has_words_for_its_result_in_either_direction(name):
    node = yaml.safe_load((conf_dir() / "claim" / f"{name}.yaml").read_text())
    (claim,) = load_claims([name])
    assert "{effect}" in node["title"]
    assert node["quantity"]
    assert claim.opposite or claim.unit.startswith("times the ")
    for effect in (1.0, -1.0):
        assert not describe_effect(claim, effect).number.startswith("-")


def test_the_smallest_effect_of_interest_has_its_unit():
    claims = load_claims(["faster_convergence", "dead_relus", "wider_learning_rates"])
    assert [describe_delta(c, c.delta_for("Digits")) for c in claims] == ["1.25x", "5 percentage points", "0.6"]
