from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bnstudy.claims import possible_claims
from bnstudy.claims.frames import StudyData
from bnstudy.claims.possible_claims import possible_contrasts
from tests import sweeps
from tests.sweeps import NODE


@pytest.fixture(autouse=True)
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims that the runs can answer and others: of a metric that was not measured, or without a case."""
    folder = tmp_path / "conf" / "claim"
    folder.mkdir(parents=True)
    others = {"unmeasured": {"metric": "gradient_slope", "delta": 1}, "other": {"with": {"norm": "LayerNorm"}}}
    names = {"dead": "units_that_died", "accuracy": "test_accuracy", "rates": "largest_tolerated_rate"}
    nodes = {name: {**NODE, "metric": metric, "delta": 2} for name, metric in names.items()}
    nodes |= {name: {**NODE, **changes} for name, changes in others.items()}
    nodes["over"] = {**NODE, "metric": "spread_of_accuracy", "over": ["lr"]}
    for name, node in nodes.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(node))
    monkeypatch.setattr("bnstudy.claims.possible_claims.conf_dir", lambda: tmp_path / "conf")
    monkeypatch.setattr("bnstudy.claims.claim.conf_dir", lambda: tmp_path / "conf")


def asked(study: StudyData, folders: tuple[Path, ...] = ()) -> list[tuple[str, str]]:
    found, cautions = possible_contrasts(study, folders)
    assert not cautions
    return [(c.claim.name, c.view) for c in found]


def test_runs_at_one_learning_rate_are_asked_what_one_rate_can_answer() -> None:
    assert asked(sweeps.of(rates=(0.1,))) == [("accuracy", "fixed_rate"), ("dead", "fixed_rate")]


def test_runs_at_several_learning_rates_are_asked_every_view() -> None:
    arms = list(itertools.product(["accuracy", "dead"], ["best_rate", "same_rate"]))
    assert asked(sweeps.of(rates=(0.1, 0.316, 1.0))) == [*arms, ("rates", "all_rates")]


def test_claims_of_ones_own_are_asked_too(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(NODE))
    assert ("mine", "fixed_rate") in asked(sweeps.of(rates=(0.1,)), (tmp_path,))


def test_a_metric_without_any_value_is_left_out() -> None:
    study = sweeps.of(rates=(0.1,))
    of_others = study.metrics.assign(run_id="another")
    assert asked(replace(study, metrics=of_others)) == [("accuracy", "fixed_rate")]


def test_too_many_cases_give_a_caution_in_place_of_contrasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(possible_claims, "MOST_CASES", 3)
    found, (caution,) = possible_contrasts(sweeps.of(rates=(0.1,), models=("MLP", "VGG")))
    assert found == []
    assert caution.startswith("No verdicts: these runs make 4 cases of 2 claims, and a report without a study judges")
