from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from bnstudy.claims.claim import claim_of, describe_renamed, load_claims
from bnstudy.claims.metrics import coarseness, find_metric
from bnstudy.store.files import conf_dir
from bnstudy.store.renames import FORMER_CLAIMS
from bnstudy.validation import ConfigError
from tests.sweeps import NODE

CLAIMS = conf_dir() / "claim"
NAMES = sorted(path.stem for path in CLAIMS.glob("*.yaml"))


def of_file(name: str, folder: str = "claim") -> dict[str, Any]:
    node = yaml.safe_load((conf_dir() / folder / f"{name}.yaml").read_text())
    return node.get("study", node) if folder == "study" else node


NODES = {path.stem: of_file(path.stem, "study") for path in (conf_dir() / "study").glob("*.yaml")}
STUDIES_OF = {name: {study for study, node in NODES.items() if name in node.get("claims", [])} for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_every_claim_can_be_read(name):
    (claim,) = load_claims([name])
    assert claim.name == name
    assert claim.statement.endswith(".")
    assert claim.min_seeds >= 10
    assert {*claim.figures} <= {path.stem for path in (conf_dir() / "figure").glob("*.yaml")}


def test_studies_name_all_claims_and_no_others():
    assert {claim for node in NODES.values() for claim in node.get("claims", [])} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_required_claim_is_of_the_same_studies(name):
    (claim,) = load_claims([name])
    for required in claim.requires:
        assert STUDIES_OF[name] <= STUDIES_OF[required]


@pytest.mark.parametrize("name", [n for n in NAMES if find_metric(of_file(n)["metric"]).kind == "of_family"])
def test_the_grids_of_studies_are_finer_than_the_smallest_effect_of_interest_on_learning_rates(name):
    (claim,) = load_claims([name])
    for study in STUDIES_OF[name]:
        rates = [float(lr) for lr in NODES[study]["sweep"]["lr"].split(",")]
        assert claim.measure.slack(coarseness(np.array(rates))) < claim.threshold("Digits")


def test_a_threshold_is_on_the_scale_of_the_differences():
    points, ratio = claim_of(NODE, "c"), load_claims(["faster_convergence"])[0]
    assert (points.threshold("MNIST"), points.in_unit(0.3)) == (0.5, 0.3)
    assert ratio.in_unit(ratio.threshold("MNIST")) == pytest.approx(1.25)


def test_delta_may_be_one_number_per_dataset():
    claim = claim_of({**NODE, "delta": {"default": 1.5, "MNIST": 0.5}}, "c")
    assert (claim.delta_for("MNIST"), claim.delta_for("CIFAR10")) == (0.5, 1.5)


def test_a_claim_may_compare_with_a_reference_or_over_several_or_across():
    alone = claim_of({**NODE, "without": None, "reference": 10, "views": ["best_rate"]}, "c")
    assert (alone.without, alone.reference) == (None, 10.0)
    several = {**NODE, "metric": "spread_of_accuracy", "over": ["init.std"], "views": ["best_rate"]}
    assert claim_of(several, "c").over == ("init.std",)
    assert claim_of({**NODE, "across": {"batch_size": 32}}, "c").across == {"batch_size": 32}


def test_the_metric_gives_defaults() -> None:
    points = claim_of({key: value for key, value in NODE.items() if key != "delta"}, "c")
    assert points.delta == {"default": 1.5, "MNIST": 0.5, "FashionMNIST": 0.5, "Digits": 1}
    assert (points.scale, points.views) == ("difference", ("best_rate", "same_rate"))
    ratio = claim_of({**NODE, "metric": "best_learning_rate", "delta": 1.25}, "c")
    assert (ratio.scale, ratio.views) == ("log_ratio", ("all_rates",))
    assert claim_of({**NODE, "metric": "updates_to_target", "delta": 2}, "c").share_of_target == 0.95
    assert claim_of({**NODE, "across": {"batch_size": 32}}, "c").views == ("best_rate",)


@pytest.mark.parametrize("former", [{"study": "quickstart"}, {"tuning_seeds": 4}])
def test_former_files_with_keys_that_are_gone_are_read(former: dict) -> None:
    assert claim_of({**NODE, **former}, "c") == claim_of(NODE, "c")


def test_a_claim_under_a_former_name_is_read_once_under_its_present_one(tmp_path: Path) -> None:
    names = ["small_batches_need_precise_statistics", "dead_relus", "precise_statistics_differ"]
    assert [claim.name for claim in load_claims(names)] == ["precise_statistics_help", "dead_relus"]
    (tmp_path / "precise_statistics_differ.yaml").write_text(yaml.safe_dump(NODE))
    assert [claim.name for claim in load_claims(names, [tmp_path])][2] == "precise_statistics_differ"


def test_a_claim_under_a_former_name_is_named_with_its_successor(tmp_path: Path) -> None:
    assert describe_renamed(["higher_useful_rates", "dead_relus"]) == [
        "The claim higher_useful_rates of an earlier version is judged by the rule of its successor "
        "wider_learning_rates."
    ]
    (tmp_path / "higher_useful_rates.yaml").write_text("")
    assert describe_renamed(["higher_useful_rates"], [tmp_path]) == []


def test_a_title_has_a_place_for_the_effect() -> None:
    with pytest.raises(ConfigError, match=r"claim.title=It is better is not allowed: it must be a text with"):
        claim_of({**NODE, "title": "It is better"}, "c")


def test_former_names_of_claims_lead_to_present_ones() -> None:
    assert {*FORMER_CLAIMS.values()} <= {*NAMES}
    assert not {*FORMER_CLAIMS} & {*NAMES}


METRIC = """
from bnstudy.claims.metrics import by_seed, metric

@metric()
def seconds(runs, *_):
    return by_seed(runs, runs["seconds"])

number = 3
"""


def test_a_metric_of_ones_own_is_found_by_its_dotted_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_metrics.py").write_text(METRIC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    claim = claim_of({**NODE, "metric": "own_metrics.seconds"}, "c")
    runs = pd.DataFrame({"seed": [3, 5], "seconds": [1, 2]})
    assert claim.measure(runs, pd.DataFrame())["value"].to_dict() == {3: 1.0, 5: 2.0}
    with pytest.raises(ConfigError, match=r"claim.metric=own_metrics.number is not allowed: it must be one of"):
        claim_of({**NODE, "metric": "own_metrics.number"}, "c")
    with pytest.raises(ConfigError, match=r"claim.metric=own_metrics.nothing cannot be imported"):
        claim_of({**NODE, "metric": "own_metrics.nothing"}, "c")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"metric": "test_acuracy"}, "claim.metric=test_acuracy is not allowed: it must be one of updates_to_target"),
        ({"metric": "test_acuracy"}, "did you mean test_accuracy?"),
        ({"delta": -1}, "claim.delta=-1 is not allowed: it must be above 0"),
        ({"delta": "a lot"}, "claim.delta=a lot is not allowed: it must be a finite number"),
        ({"better": "highr"}, "it must be one of higher, lower, either; did you mean higher?"),
        ({"scale": "log_ratio"}, "claim.scale=log_ratio is not allowed: it must be difference for test_accuracy"),
        ({"views": ["all_rates"]}, "it must be a list of best_rate and same_rate for test_accuracy"),
        ({"views": []}, "it must be a list of best_rate and same_rate"),
        (
            {"requires": {"other": ["TRUE"]}},
            "it must be a mapping of claims to lists of SUPPORTED or CONTRADICTED or NEG",
        ),
        ({"requires": {"other": "SUPPORTED"}}, "it must be a mapping of claims to lists of SUPPORTED or CONTRADICTED"),
        ({"min_seeds": 1}, "claim.min_seeds=1 is not allowed: it must be at least 2"),
        ({"target_share": 0.9}, "it must be left out, as test_accuracy has no target"),
        ({"metric": "updates_to_target", "delta": 2, "target_share": 2}, "it must be a share in (0, 1]"),
        ({"metric": "dead_units", "delta": ...}, "claim.delta is missing."),
        ({"with": {}}, "it must be a mapping such as {norm: BatchNorm}"),
        ({"with": "BatchNorm"}, "claim.with=BatchNorm is not allowed: it must be a mapping"),
        ({"mertic": 1}, "claim.mertic is not a known key; did you mean metric? Known: statement"),
        ({"statement": ...}, "claim.statement is missing."),
        ({"delta": {"MNIST": 0.5}}, "it must be a number, or one by dataset with a default"),
        ({"delta": {"default": 0}}, "it must be above 0"),
        ({"without": ...}, "claim.without=null is not allowed: it must be a mapping such as {norm: NoNorm}, unless"),
        ({"reference": 0}, "it must be left out where there is a reference"),
        (
            {"without": ..., "reference": 0, "views": ["same_rate"]},
            "it must be without same_rate where there is a reference",
        ),
        ({"across": {"lr": 1, "batch_size": 2}}, "it must be a mapping of one column to a value"),
        ({"over": ["init"]}, "it must be left out for test_accuracy"),
        ({"metric": "spread_of_accuracy"}, "it must be a list of columns such as [init.std] for spread_of_accuracy"),
        ({"metric": "spread_of_accuracy", "over": ["init"], "views": ["same_rate"]}, "it must be a list of best_rate"),
        (
            {"metric": "gradient_slope", "views": ["best_rate"]},
            "it must be a list of before_training for gradient_slope",
        ),
    ],
)
def test_mistakes_are_refused_in_a_sentence(changes, sentence):
    node = {key: value for key, value in {**NODE, **changes}.items() if value is not ...}
    with pytest.raises(ConfigError) as refused:
        claim_of(node, "c")
    assert sentence in str(refused.value)


def test_an_unknown_claim_is_refused_with_the_nearest_name():
    with pytest.raises(
        ConfigError, match=r"dead_relu is unknown: there is no dead_relu\.yaml in .*did you mean dead_rel"
    ):
        load_claims(["dead_relu"])


def test_own_folders_come_first_and_a_bad_file_is_named(tmp_path: Path):
    path = tmp_path / "dead_relus.yaml"
    path.write_text(yaml.safe_dump(NODE))
    assert load_claims(["dead_relus"], [tmp_path])[0].statement == "It is better."
    path.write_text("[1, 2]")
    with pytest.raises(ConfigError, match=r"In .*dead_relus\.yaml: a claim is a mapping"):
        load_claims(["dead_relus"], [tmp_path])


def test_the_directions_of_a_claim_that_names_none_are_its_own_words():
    named, neither, turned = load_claims(["dead_relus", "alternatives", "uneven_gradients"])
    assert named.directions == ("against the claim", "for the claim")
    assert neither.directions == ("less", "more")
    assert turned.directions == ("larger", "smaller")
    assert replace(neither, opposite="").directions == ("less", "more")


def test_an_interval_of_percentage_points_ends_where_two_values_cannot_be_farther_apart():
    claim = claim_of({**NODE, "metric": "test_accuracy"}, "c")
    assert [claim.end(points) for points in (-270.0, -99.0, 101.0)] == [-100.0, -99.0, 100.0]
    assert math.isnan(claim.end(math.nan))
    assert claim.end(-math.inf) == -math.inf, "an interval without an end has none"
    assert claim_of({**NODE, "metric": "dead_units", "across": {"depth": 1}}, "c").end(-270.0) == -200.0
    assert claim_of({**NODE, "metric": "mean_training_loss", "delta": 2}, "c").end(-270.0) == -270.0, "a ratio"


def test_an_end_of_an_interval_that_no_number_can_hold_is_infinite():
    ratio, difference = load_claims(["faster_convergence", "dead_relus"])
    assert [ratio.end(value) for value in (-6e7, -1.0, 1.0, 6e7)] == [-math.inf, -1.0, 1.0, math.inf]
    assert ratio.in_unit(math.inf) > 1e300
    assert (difference.end(6e7), difference.in_unit(6e7)) == (100, 6e7)
