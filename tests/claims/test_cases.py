from __future__ import annotations

import pandas as pd
import pytest

from bnstudy.claims import arms
from bnstudy.claims.cases import Case, cases
from bnstudy.claims.claim import Claim, claim_of, load_claims
from tests.sweeps import NODE


def specs(*runs: dict) -> pd.DataFrame:
    """One run each, on one panel."""
    full = [
        {"run_id": f"r{i}", "model": "MLP", "data": "MNIST", "lr": 0.1, "seed": 0, **run} for i, run in enumerate(runs)
    ]
    return arms.label(pd.DataFrame(full))


def claim(**changes) -> Claim:
    return claim_of({key: value for key, value in {**NODE, **changes}.items() if value is not ...}, "c")


def product(**values: list) -> list[dict]:
    runs: list[dict] = [{}]
    for column, options in values.items():
        runs = [{**run, column.replace("__", "."): value} for run in runs for value in options]
    return runs


def families(found: list[Case]) -> list[tuple]:
    return [(case.setting, case.with_, case.without) for case in found]


def test_two_norms_are_one_case():
    both = specs({"norm": "NoNorm"}, {"norm": "BatchNorm"}, {"norm": "LayerNorm"})
    assert families(cases(claim(), both)) == [("", ("BatchNorm",), ("NoNorm",))]


def test_each_other_difference_makes_a_case():
    found = cases(claim(), specs(*product(norm=["NoNorm", "BatchNorm"], batch_size=[64, 8])))
    assert families(found) == [
        ("batch_size=8", ("BatchNorm, batch_size=8",), ("NoNorm, batch_size=8",)),
        ("batch_size=64", ("BatchNorm, batch_size=64",), ("NoNorm, batch_size=64",)),
    ]


def test_settings_name_both_sides_where_several_families_match_one():
    runs = [{"norm": "NoNorm"}, *({"norm": "BatchNorm", "norm.eps": eps} for eps in (1e-5, 1e-3))]
    assert [case.setting for case in cases(claim(), specs(*runs))] == [
        "BatchNorm, eps=1e-05 against NoNorm", "BatchNorm, eps=0.001 against NoNorm",
    ]  # fmt: skip


def test_each_value_of_a_list_makes_a_case():
    norms = specs(*product(norm=["NoNorm", "BatchNorm", "LayerNorm", "GroupNorm"]))
    found = cases(claim(**{"with": {"norm": ["LayerNorm", "GroupNorm"]}, "without": {"norm": "BatchNorm"}}), norms)
    assert {case.setting for case in found} == {"LayerNorm against BatchNorm", "GroupNorm against BatchNorm"}


def test_fields_of_one_norm_are_compared_with_all_others_equal():
    sides = {"with": {"norm": "BatchNorm", "norm.affine": True}, "without": {"norm": "BatchNorm", "norm.affine": False}}
    runs = product(norm=["BatchNorm"], norm__affine=[True, False], norm__momentum=[0.1, 0.5])
    found = cases(claim(**sides), specs(*runs))
    assert [case.setting for case in found] == ["momentum=0.1", "momentum=0.5"]
    assert all("affine=true" in case.with_[0] and "affine=false" in case.without[0] for case in found)


def test_columns_other_than_the_norm_can_be_compared():
    sides = {"with": {"trained": "norm"}, "without": {"trained": "all"}}
    found = cases(claim(**sides), specs(*product(norm=["BatchNorm"], trained=["norm", "all"])))
    assert families(found) == [("", ("trained=norm",), ("trained=all",))]


def test_a_case_with_a_reference_has_no_families_without():
    alone = claim(without=..., reference=0, views=["best_rate"])
    found = cases(alone, specs(*product(norm=["NoNorm", "BatchNorm"], batch_size=[8, 64])))
    assert [(case.setting, case.without) for case in found] == [("batch_size=8", ()), ("batch_size=64", ())]


def test_an_interaction_has_a_case_for_each_other_value():
    runs = product(norm=["NoNorm", "BatchNorm"], batch_size=[4, 8, 32])
    found = cases(claim(across={"batch_size": 32}), specs(*runs))
    assert [case.setting for case in found] == ["batch_size=4 against 32", "batch_size=8 against 32"]
    for case in found:
        assert case.at_reference is not None
        assert case.at_reference.with_ == ("BatchNorm, batch_size=32",)


def test_null_is_a_value_of_across():
    runs = product(norm=["NoNorm", "BatchNorm"], data__train_size=[500.0, float("nan")])
    (found,) = cases(claim(across={"data.train_size": None}), specs(*runs))
    assert found.setting == "train_size=500 against all"


def test_an_interaction_without_its_reference_has_no_case():
    runs = product(norm=["NoNorm", "BatchNorm"], batch_size=[4, 8])
    assert cases(claim(across={"batch_size": 32}), specs(*runs)) == []


def test_an_interaction_without_its_column_has_no_case():
    assert cases(claim(across={"model.dropout": 0}), specs({"norm": "NoNorm"}, {"norm": "BatchNorm"})) == []


@pytest.mark.parametrize("column", ["init", "init.std"])
def test_a_claim_over_several_values_has_all_of_them_on_one_side(column):
    runs = product(norm=["NoNorm", "BatchNorm"], init=["Normal"], init__std=[0.1, 1.0], depth=[2, 3])
    found = cases(claim(metric="spread_of_accuracy", over=[column], views=["best_rate"]), specs(*runs))
    assert [(case.setting, len(case.with_), len(case.without)) for case in found] == [
        ("depth=2", 2, 2),
        ("depth=3", 2, 2),
    ]


def test_dropout_without_batch_normalization_is_one_case_of_a_two_by_two_design():
    (helps, less_need) = load_claims(["dropout_helps", "less_need_of_dropout"])
    runs = specs(*product(norm=["NoNorm", "BatchNorm"], model__dropout=[0.0, 0.5]))
    (case,) = cases(helps, runs)
    assert (case.with_, case.without) == (("NoNorm, dropout=0.5",), ("NoNorm, dropout=0",))
    (interaction,) = cases(less_need, runs)
    assert case.families < interaction.families
