from __future__ import annotations

import itertools

import pandas as pd
import pytest

from bnstudy.claims import arms
from bnstudy.claims.claim import claim_of
from bnstudy.store.flat import spec_columns
from tests.sweeps import NODE
from tests.synthetic import Run, lr_sweep, two_models


def labelled(runs: list[Run]) -> pd.DataFrame:
    return arms.label(pd.DataFrame([{"run_id": r.run_id, **spec_columns(r.spec)} for r in runs]))


def names(runs: list[Run], column: str = "arm") -> list[str]:
    return list(labelled(runs)[column].cat.categories)


def test_arms_are_named_by_the_norm_if_only_it_differs() -> None:
    assert names([Run("BatchNorm"), Run("NoNorm"), Run("NoNorm", seed=1)]) == ["NoNorm", "BatchNorm"]


def test_learning_rates_are_sorted_as_numbers_and_stay_out_of_the_family() -> None:
    runs = [Run("BatchNorm", lr) for lr in (10.0, 0.003, 1.0)]
    assert names([*runs, Run("NoNorm", 1.0)]) == [
        "NoNorm, lr=1",
        "BatchNorm, lr=0.003",
        "BatchNorm, lr=1",
        "BatchNorm, lr=10",
    ]
    assert names([*runs, Run("NoNorm", 1.0)], "family") == ["NoNorm", "BatchNorm"]


def test_models_and_data_are_named_in_the_arm_and_in_the_panel_only() -> None:
    table = labelled(two_models())
    assert list(table["panel"].cat.categories) == ["MLP on MNIST", "VGG on MNIST"]
    assert list(table["family"].cat.categories) == ["NoNorm", "BatchNorm", "LayerNorm"]
    assert "VGG, NoNorm" in set(table["arm"])


def test_a_field_of_one_class_is_a_factor_only_if_it_differs_there() -> None:
    assert names([Run("NoNorm"), Run("BatchNorm"), Run("LayerNorm")]) == ["NoNorm", "BatchNorm", "LayerNorm"]
    after = (("position", "after"),)
    runs = [Run("NoNorm"), Run("BatchNorm"), Run("BatchNorm", norm_fields=after)]
    assert names(runs) == ["NoNorm", "BatchNorm, position=after", "BatchNorm, position=before"]


def test_the_scale_of_pixels_is_a_factor() -> None:
    assert names([Run(), Run("BatchNorm", fields=(("data.scale", "unit"),))]) == [
        "NoNorm, scale=standardized",
        "BatchNorm, scale=unit",
    ]


def test_a_class_within_a_class_is_named_by_its_key() -> None:
    schemes = [("init.conv", {"_target_": f"bnstudy.inits.{name}"}) for name in ("Normal", "Orthogonal")]
    assert names([Run(fields=(scheme,)) for scheme in schemes]) == ["init.conv=Normal", "init.conv=Orthogonal"]


def test_a_field_within_a_class_is_named_with_its_parent() -> None:
    lengths = [Run(), Run(fields=(("data.length", {"min": 4, "max": 8}),))]
    assert names(lengths) == ["length.min=none, length.max=none", "length.min=4, length.max=8"]
    stopping = (("early_stopping", {"_target_": "bnstudy.run.EarlyStopping", "patience": 3}),)
    assert names([Run(fields=(("early_stopping", None),)), Run(fields=stopping)]) == [
        "early_stopping=no",
        "early_stopping=yes",
    ]
    stopping_later = (("early_stopping", {"_target_": "bnstudy.run.EarlyStopping", "patience": 5}),)
    assert names([Run(fields=stopping), Run(fields=stopping_later)]) == [
        "early_stopping.patience=3",
        "early_stopping.patience=5",
    ]


def test_null_has_a_word_that_no_other_value_has() -> None:
    sizes = [Run(fields=(("data.train_size", size),)) for size in (500, None)]
    assert names(sizes) == ["train_size=all", "train_size=500"]
    modes = [Run(fields=(("model.mode", mode),)) for mode in ("none", None)]
    assert names(modes) == ["mode=null", "mode=none"]


def test_a_factor_that_the_data_determine_is_dropped() -> None:
    runs = [Run(data="Digits"), Run(data="MNIST")]
    assert runs[0].spec["data"]["val_fraction"] != runs[1].spec["data"]["val_fraction"]
    assert names(runs) == ["Digits", "MNIST"]


def test_a_factor_that_another_one_determines_is_named_too() -> None:
    runs = [Run(batch_size=b, total=t) for b, t in ((2, 400), (8, 100))]
    assert names(runs) == ["batch_size=2, steps=400", "batch_size=8, steps=100"]
    shallow = (("model.depth", 1), ("optim.momentum", 0.0))
    table = labelled([Run("NoNorm", fields=shallow), Run("BatchNorm")])
    assert list(table["family"].cat.categories) == [
        "NoNorm, depth=1, optim.momentum=0",
        "BatchNorm, depth=3, optim.momentum=0.9",
    ]


def test_fields_of_a_class_are_compared_within_it_only() -> None:
    groups = [Run("GroupNorm", norm_fields=(("groups", g),)) for g in (4, 8)]
    assert names([Run("NoNorm"), *groups]) == ["NoNorm", "GroupNorm, groups=4", "GroupNorm, groups=8"]
    adam = (("optim._target_", "bnstudy.optim.Adam"), ("optim.momentum", None), ("optim.beta2", 0.99))
    assert names([Run(), Run(fields=adam)]) == ["Adam", "SGD"]


def test_probes_and_evaluation_are_no_factors() -> None:
    table = labelled([Run(), Run(probed="weights"), Run("BatchNorm", fields=(("evaluation.early", 3),))])
    assert list(table["arm"].cat.categories) == ["NoNorm", "BatchNorm"]


BY_BATCH = (("track_running_stats", False),)


def test_the_batch_of_an_evaluation_is_a_factor_unless_it_is_that_of_training() -> None:
    def run(size: int, batch_size: int = 64) -> Run:
        return Run("BatchNorm", norm_fields=BY_BATCH, batch_size=batch_size, fields=((arms.EVALUATION_BATCH, size),))

    assert names([Run("NoNorm"), run(64)]) == ["NoNorm", "BatchNorm"]
    assert names([run(64), run(4, batch_size=4)]) == ["batch_size=4", "batch_size=64"]
    assert names([Run("NoNorm"), run(64), run(256), run(8)]) == [
        "NoNorm",
        "BatchNorm, evaluation.batch_size=as in training",
        "BatchNorm, evaluation.batch_size=8",
        "BatchNorm, evaluation.batch_size=256",
    ]


def test_runs_of_an_earlier_version_evaluated_in_class_balanced_parts_are_another_arm() -> None:
    old = Run("BatchNorm", norm_fields=BY_BATCH)
    new = Run("BatchNorm", norm_fields=BY_BATCH, fields=((arms.EVALUATION_BATCH, 64),))
    assert names([old]) == ["BatchNorm"]
    assert names([old, Run("NoNorm")]) == ["NoNorm", "BatchNorm"]
    assert names([old, new]) == ["evaluation.batch_size=as in training", f"evaluation.batch_size={arms.BALANCED}"]
    assert labelled([old, new])["arm"].nunique() == 2


def test_classes_with_the_same_name_have_dotted_names() -> None:
    mine = (("norm._target_", "mine.BatchNorm"),)
    table = labelled([Run("NoNorm"), Run("BatchNorm"), Run("BatchNorm", fields=mine)])
    assert list(table["arm"].cat.categories) == ["NoNorm", "bnstudy.norms.batch.BatchNorm", "mine.BatchNorm"]
    table = labelled([Run("NoNorm"), Run("NoNorm", fields=(("norm._target_", "a.NoNorm"),))])
    assert list(table["arm"].cat.categories) == ["bnstudy.norms.none.NoNorm", "a.NoNorm"]
    assert table["norm"].isin(arms.BASELINES).tolist() == [True, False]
    assert names([Run(), Run(fields=(("model._target_", "mine.MLP"),))], "panel") == [
        "bnstudy.models.mlp.MLP on Digits",
        "mine.MLP on Digits",
    ]


def test_a_single_arm_is_called_by_its_norm() -> None:
    table = labelled([Run("BatchNorm", seed=s) for s in range(3)])
    assert set(table["arm"]) == set(table["family"]) == {"BatchNorm"}


def test_rest_is_what_differs_beside_the_norm() -> None:
    runs = [Run(n, gain=g) for n, g in itertools.product(("NoNorm", "BatchNorm"), (0.1, 1.0))]
    table = labelled(runs)
    assert list(table["rest"].cat.categories) == ["gain=0.1", "gain=1"]
    assert list(table["norm_label"].cat.categories) == ["NoNorm", "BatchNorm"]


def test_values_that_look_alike_stay_apart() -> None:
    assert len(names([Run(lr=0.0316227766), Run(lr=0.0316227800)])) == 2


@pytest.mark.parametrize("runs", [lr_sweep(3), two_models()])
def test_arms_are_what_a_naive_grouping_by_everything_but_the_seed_gives(runs: list[Run]) -> None:
    table = labelled(runs)
    naive = [str({k: v for k, v in r.spec.items() if k != "seed"}) for r in runs]
    assert table.groupby(naive)["arm"].nunique().eq(1).all()
    assert table.groupby("arm", observed=True).size().eq(pd.Series(naive).value_counts().iloc[0]).all()


@pytest.mark.parametrize("fields", [(), (("model.dropout", None),), (("probe.seed", 3),), (("model.seed", 3),)])
def test_distinct_rows_stand_for_all_that_differ_in_the_seed_alone(fields: tuple) -> None:
    runs = [Run(lr=lr, seed=seed, fields=fields) for lr in (0.1, 0.10000000001, 1.0) for seed in range(3)]
    specs = pd.DataFrame({"run_id": r.run_id, **spec_columns(r.spec)} for r in runs)
    one, nth = arms.distinct(specs)
    others = [c for c in specs if c != "run_id" and (c != "seed" or any(c.endswith(".seed") for c in specs))]
    assert len(one) == len(specs.astype(object)[others].map(repr).drop_duplicates())
    spread = one.iloc[nth].reset_index(drop=True)
    pd.testing.assert_frame_equal(spread[others], specs[others])


def test_no_runs_have_no_labels() -> None:
    assert labelled([Run()]).iloc[:0].pipe(arms.label).empty


def frame(rows: list[tuple], columns: str = "family lr seed score counts_as_guessing") -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=columns.split())
    return table.assign(
        panel="p",
        norm=table["family"],
        norm_label=table["family"],
        rest="",
        arm=table["family"] + table["lr"].astype(str),
    )


def test_the_best_learning_rate_is_chosen_on_validation_not_on_test() -> None:
    runs = frame([("BN", 0.1, 0, 0.8, False), ("BN", 1.0, 0, 0.7, False)]).assign(test_accuracy=[0.1, 0.99])
    assert arms.best_arms(runs)["lr"].tolist() == [0.1]


def test_the_smaller_of_equally_good_rates_is_chosen_and_rates_at_the_edge_are_marked() -> None:
    rows = [("a", lr, 0, acc, False) for lr, acc in ((0.1, 0.9), (1.0, 0.9), (10.0, 0.5))]
    rows += [("b", lr, 0, acc, False) for lr, acc in ((0.1, 0.5), (1.0, 0.9), (10.0, 0.5))]
    best = arms.best_arms(frame(rows)).set_index("family")
    assert best["lr"].to_dict() == {"a": 0.1, "b": 1.0}
    assert best["edge"].to_dict() == {"a": True, "b": False}
    assert not arms.best_arms(frame(rows[:2]))["edge"].any()


def test_versions_of_a_dataset_are_labels_of_their_own_also_where_two_classes_share_a_name() -> None:
    mine = (("data._target_", "mine.Digits"),)
    runs = [Run(seed=seed, fields=fields) for fields in ((), mine) for seed in range(3)]
    specs = pd.DataFrame([{"run_id": r.run_id, **spec_columns(r.spec)} for r in runs])
    checksums = {run.run_id: f"{run.seed}23456789" for run in runs if run.seed < 2}
    table = arms.label(arms.add_checksums(specs, checksums))
    versions = ("", " (images 023456)", " (images 123456)")
    digits = {f"{module}.Digits" + v for module in ("bnstudy.data.digits", "mine") for v in versions}
    assert set(table["data"]) == digits == {arms.dataset_name(name) + name.partition("Digits")[2] for name in digits}
    assert set(table["panel"]) == {f"MLP on {name}" for name in digits}
    assert table["arm"].nunique() == 6


def test_a_version_has_the_smallest_effect_of_interest_of_its_dataset() -> None:
    claim = claim_of({**NODE, "delta": {"MNIST": 0.5, "default": 1.5}}, "c")
    names = ("MNIST (images 012345)", "MNIST", "Digits (images 012345)")
    assert [claim.delta_for(name) for name in names] == [0.5, 0.5, 1.5]
