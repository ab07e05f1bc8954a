from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bnstudy.claims.claim import claim_of, load_claims
from bnstudy.store.files import conf_dir
from bnstudy.validation import ConfigError

CLAIMS = conf_dir() / "claim"
NAMES = sorted(path.stem for path in CLAIMS.glob("*.yaml"))
NODE = {
    "statement": "It is better.", "source": "folklore", "metric": "test_accuracy", "better": "higher",
    "scale": "difference", "delta": 0.5, "unit": "percentage points", "with": {"norm": "BatchNorm"},
    "without": {"norm": "NoNorm"}, "views": ["same_rate", "best_rate"], "tuning_seeds": 5, "study": "quickstart",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_claim_can_be_read(name):
    (claim,) = load_claims([name], [CLAIMS])
    assert claim.name == name
    assert claim.statement.endswith(".")
    assert claim.min_seeds >= 10


def test_the_studies_name_claims_that_there_are():
    nodes = [yaml.safe_load(path.read_text()) for path in (conf_dir() / "study").glob("*.yaml")]
    assert {claim for node in nodes for claim in node.get("study", node).get("claims", [])} == set(NAMES)


def test_a_threshold_is_on_the_scale_of_the_differences():
    points, ratio = claim_of(NODE, "c"), load_claims(["faster_convergence"], [CLAIMS])[0]
    assert (points.threshold("MNIST"), points.in_unit(0.3)) == (0.5, 0.3)
    assert ratio.in_unit(ratio.threshold("MNIST")) == pytest.approx(1.25)


def test_a_threshold_may_be_one_by_dataset():
    claim = claim_of({**NODE, "delta": {"default": 1.5, "MNIST": 0.5}}, "c")
    assert (claim.delta_for("MNIST"), claim.delta_for("CIFAR10")) == (0.5, 1.5)


def test_a_claim_may_compare_with_a_reference_or_over_several_or_across():
    alone = claim_of({**NODE, "without": None, "reference": 10, "views": ["best_rate"]}, "c")
    assert (alone.without, alone.reference) == (None, 10.0)
    several = {**NODE, "metric": "spread_of_accuracy", "over": ["init.std"], "views": ["best_rate"]}
    assert claim_of(several, "c").over == ("init.std",)
    assert claim_of({**NODE, "across": {"batch_size": 32}}, "c").across == {"batch_size": 32}


def test_every_claim_is_one_that_its_study_bears_on():
    nodes = {path.stem: yaml.safe_load(path.read_text()) for path in (conf_dir() / "study").glob("*.yaml")}
    studies = {name: node.get("study", node) for name, node in nodes.items()}
    for claim in load_claims(NAMES, [CLAIMS]):
        assert claim.name in studies[claim.study]["claims"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"metric": "accuracy"}, "claim.metric=accuracy is not allowed: it must be one of updates_to_target"),
        ({"delta": -1}, "claim.delta=-1 is not allowed: it must be above 0"),
        ({"delta": "a lot"}, "claim.delta=a lot is not allowed: it must be a finite number"),
        ({"better": "highr"}, "it must be one of higher, lower, either; did you mean higher?"),
        ({"scale": "log_ratio"}, "claim.scale=log_ratio is not allowed: it must be difference for test_accuracy"),
        ({"views": ["all_rates"]}, "it must be a list of same_rate and best_rate for test_accuracy"),
        ({"views": []}, "it must be a list of same_rate and best_rate"),
        ({"tuning_seeds": 0}, "claim.tuning_seeds=0 is not allowed: it must be at least 1 for test_accuracy"),
        ({"target_share": 0.9}, "it must be left out, as test_accuracy has no target"),
        ({"metric": "updates_to_target"}, "claim.target_share=null is not allowed: it must be a share in (0, 1]"),
        ({"with": {}}, "it must be a mapping such as {norm: BatchNorm}"),
        ({"with": "BatchNorm"}, "claim.with=BatchNorm is not allowed: it must be a mapping"),
        ({"mertic": 1}, "claim.mertic is not a known key; did you mean metric? Known: statement"),
        ({"statement": ...}, "claim.statement is missing."),
        ({"delta": {"MNIST": 0.5}}, "it must be a number, or one by dataset with a default"),
        ({"delta": {"default": 0}}, "it must be above 0"),
        ({"without": ...}, "claim.without=null is not allowed: it must be a mapping such as {norm: NoNorm}, unless"),
        ({"reference": 0}, "it must be left out where there is a reference"),
        ({"without": ..., "reference": 0}, "it must be without same_rate where there is a reference"),
        ({"across": {"lr": 1, "batch_size": 2}}, "it must be a mapping of one column to a value"),
        ({"over": ["init"]}, "it must be left out for test_accuracy"),
        ({"metric": "spread_of_accuracy"}, "it must be a list of columns such as [init.std] for spread_of_accuracy"),
        ({"metric": "spread_of_accuracy", "over": ["init"]}, "it must be [best_rate] for spread_of_accuracy"),
        ({"metric": "gradient_slope"}, "it must be a list of before_training for gradient_slope"),
    ],
)
def test_what_is_wrong_is_said(changes, sentence):
    node = {key: value for key, value in {**NODE, **changes}.items() if value is not ...}
    with pytest.raises(ConfigError) as refused:
        claim_of(node, "c")
    assert sentence in str(refused.value)


def test_a_claim_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(
        ConfigError, match=r"dead_relu, of which there is no dead_relu\.yaml in .*did you mean dead_rel"
    ):
        load_claims(["dead_relu"], [CLAIMS])


def test_own_folders_come_first_and_a_bad_file_is_named(tmp_path: Path):
    path = tmp_path / "dead_relus.yaml"
    path.write_text(yaml.safe_dump(NODE))
    assert load_claims(["dead_relus"], [tmp_path, CLAIMS])[0].statement == "It is better."
    path.write_text("[1, 2]")
    with pytest.raises(ConfigError, match=r"In .*dead_relus\.yaml: a claim is a mapping"):
        load_claims(["dead_relus"], [tmp_path])
