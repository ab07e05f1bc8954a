from __future__ import annotations

import itertools

import pytest

from bnstudy.claims.frames import StudyData
from tests.report.reproductions.synthetic_study import reproduction, study

NOTEBOOK = {"data": "MNIST", "steps": 2000, "lr": 0.01, "batch_size": 60, "init": "Normal", "init.std": 0.05}
COURSE = {"data": "CIFAR10", "data.train_size": 1000, "epochs": 10, "batch_size": 50, "lr": 0.001}
ACCURACY = {("NoNorm", "unit"): 0.826, ("NoNorm", None): 0.85, ("BatchNorm", "unit"): 0.95, ("BatchNorm", None): 0.95}


def notebook(**changed: object) -> StudyData:
    """The usual scale is missing in a spec."""
    runs = [
        {"norm": norm, "data.scale": scale, "seed": s, "test_accuracy": value + 0.001 * s, **NOTEBOOK, **changed}
        for ((norm, scale), value), s in itertools.product(ACCURACY.items(), range(3))
    ]
    return study("notebook_relu", runs, [])


def test_each_norm_at_each_scale_is_compared_with_its_own_value():
    result = reproduction(notebook())
    assert [(c.arm, c.expected.label, c.result) for c in result.checks] == [
        ("NoNorm, scale=unit", "0.826 (n)", "met"),
        ("NoNorm, scale=standardized", "0.91 (c)", "not met"),
        ("BatchNorm, scale=unit", "0.95 (c)", "met"),
        ("BatchNorm, scale=standardized", "0.95 (c)", "met"),
    ]
    assert result.checks[0].measured == "0.827 (0.825 to 0.829, 3 seeds)"
    assert result.draw() is not None


@pytest.mark.parametrize("changed", [{"data": "Digits"}, {"steps": 500}, {"init.std": 0.1}, {"lr": 0.1}])
def test_runs_with_other_settings_are_not_comparable(changed):
    assert {c.result for c in reproduction(notebook(**changed)).checks} == {"not comparable"}


def test_learning_rates_are_not_pooled():
    data = notebook(lr=0.1)
    runs = data.runs.assign(lr=[0.01 if seed == 0 else 0.1 for seed in data.runs["seed"]])
    assert {c.measured for c in reproduction(study("notebook_relu", runs.to_dict("records"), [])).checks} == {
        "0.826 (1 seed)", "0.850 (1 seed)", "0.950 (1 seed)",
    }  # fmt: skip


def course(data: str = "CIFAR10") -> StudyData:
    gaps = {"levels": 0.11, "unit": 0.3, None: 0.40}
    runs, rows = [], []
    for (scale, gap), norm, seed in itertools.product(gaps.items(), ("NoNorm", "BatchNorm"), range(3)):
        accuracy = 0.4 + 0.1 * seed + (gap if norm == "BatchNorm" else 0)  # the seeds differ alike in both arms
        settings = {**COURSE, "data": data, "init": "Normal", "init.std": 0.02}
        run = f"r{len(runs)}"
        runs.append({"norm": norm, "data.scale": scale, "seed": seed, **settings})
        rows += [(run, 200, "", "train_accuracy", "", accuracy), (run, 0, "", "train_accuracy", "", 0.1)]
    return study("course_mlp", runs, rows)


def test_gaps_are_differences_by_seed_of_the_last_training_accuracies():
    result = reproduction(course())
    assert [(c.arm, c.measured[:5], c.expected.label, c.result) for c in result.checks] == [
        ("scale=levels", "0.110", "0.11 (n)", "met"),
        ("scale=standardized", "0.400", "0.53 (c)", "not met"),
        ("scale=standardized minus scale=levels", "0.290", "above 0 (c)", "met"),
    ]
    assert result.draw() is not None


def test_gaps_on_images_re_encoded_as_jpeg_are_compared_and_say_so():
    checks = reproduction(course("CIFAR-10 (JPEG)")).checks
    assert [c.result for c in checks] == ["met", "not met", "met"]
    assert all(c.arm.endswith(", images re-encoded as JPEG") for c in checks)
    assert {c.result for c in reproduction(course("CIFAR100")).checks} == {"not comparable"}
