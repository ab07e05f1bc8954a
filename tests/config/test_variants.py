from __future__ import annotations

from pathlib import Path

import pytest

from bnstudy.claims.frames import load_study
from bnstudy.config.variants import as_variant, variant_name
from bnstudy.store.plans import Plans
from bnstudy.sweep.settings import StudySpec
from bnstudy.validation import ConfigError
from tests.conftest import Command

STUDY = StudySpec("dead_relu", "Do fewer units die?", ("dead_relus",), {}, {})
TINY = ("data=digits", "model=mlp", "model.width=8", "batch_size=64", "steps=3", "lr=0.1")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("study=dead_relu", "scale=standard"),
        ("results_dir=elsewhere", "device=cpu", "engine=serial", "threads=1", "dry_run=true", "refine=false"),
        ("until=decided", "max_seeds=20"),
        ("data.root=/data", "hydra.launcher.workers=2", "hydra/sweeper=bnstudy", "-m", "--config-dir", "my_conf"),
    ],
)
def test_words_that_change_no_run_make_no_variant(words: tuple[str, ...]) -> None:
    assert as_variant(STUDY, words) == STUDY


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["model.depth=8", "lr=0.1"], "dead_relu-lr-0.1-model.depth-8"),
        (["lr=0.1", "model.depth=8"], "dead_relu-lr-0.1-model.depth-8"),
        (["seed=range(0,2)"], "dead_relu-seed-range-0-2"),
        (["norm=none,group"], "dead_relu-norm-none-group"),
        (["+probe.fit=x"], "dead_relu-probe.fit-x-"),
        (["~probe.dead_units"], "dead_relu-probe.dead_units-"),
        (["study.claims=[dead_relus,regularizes]"], "dead_relu-study.claims-dead_relus-regularizes-"),
    ],
)
def test_a_changed_study_is_a_variant_with_the_changes_in_its_name(words: list[str], name: str) -> None:
    variant = as_variant(STUDY, ["study=dead_relu", *words, "device=cpu"])
    assert variant.name == name or (name.endswith("-") and variant.name.startswith(name))
    assert variant.title == f"Do fewer units die? Changed: {', '.join(sorted(words))}."
    assert variant.claims == STUDY.claims


def test_variants_whose_names_would_be_equal_have_a_digest() -> None:
    pairs = [("model.x=-1", "model.x=1"), ("norm=a/b", "norm=a-b"), (f"lr={'1,' * 60}1", f"lr={'1,' * 60}2")]
    for one, other in pairs:
        assert variant_name("s", [one]) != variant_name("s", [other])
        assert len(variant_name("s", [one])) <= 80


def test_a_name_of_the_users_own_stays() -> None:
    named = StudySpec("deep", "?", (), {}, {})
    assert as_variant(named, ["study=dead_relu", "study.name=deep", "model.depth=8"]) == named


def test_a_changed_study_is_planned_apart_and_found_by_the_name_of_the_study_if_it_is_the_only_one(
    command: Command,
) -> None:
    status, _, err = command("study=dead_relu", *TINY, "init=normal", "norm=none,batch", "seed=0")
    assert status == 0, err
    plans = Plans(Path("results"))
    (variant,) = plans.studies()
    (plan,) = plans.load(variant)
    assert variant.startswith("dead_relu-batch_size-64-data-digits-init-normal-lr-0.1")
    assert (plan["variant_of"], len(plan["run_ids"])) == ("dead_relu", 2)
    assert plan["commands"][0].startswith("bnstudy study=dead_relu data=digits")
    assert load_study(Path("results"), "dead_relu").name == variant


def test_several_variants_are_to_be_named(tmp_path: Path) -> None:
    plans = Plans(tmp_path)
    for name in ("s-lr-1", "s-lr-2"):
        plans.add({"name": name, "title": "?", "claims": [], "variant_of": "s"}, "quick", "bnstudy study=s", [])
    with pytest.raises(ConfigError, match="choose one of study=s-lr-1, study=s-lr-2"):
        load_study(tmp_path, "s")
    assert plans.relatives("s-lr-1") == ["s", "s-lr-2"]
    plans.add({"name": "s", "title": "?", "claims": []}, "quick", "bnstudy study=s", [])
    assert plans.find("s") == "s"
    assert plans.relatives("s") == []


def test_a_variant_with_seeds_that_were_added_because_of_results_has_several_looks_too(tmp_path: Path) -> None:
    plans, about = Plans(tmp_path), {"title": "?", "claims": []}
    a, b, c = (letter * 12 for letter in "abc")
    plans.add({"name": "s", "looks": "repeated", **about}, "quick", "bnstudy study=s until=decided", [a, b])
    for name, run_id in (("s-seed-1", b), ("s-seed-2", c)):
        plans.add({"name": name, "variant_of": "s", **about}, "quick", "bnstudy study=s", [run_id])
    assert [plans.load(name)[0].get("looks") for name in ("s-seed-1", "s-seed-2")] == ["repeated", None]
