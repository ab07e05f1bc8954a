"""A regression, from the command line to the report, has losses and no accuracy."""

from __future__ import annotations

import math

import pytest

import bnstudy
from bnstudy import cli
from bnstudy.store.runs import Store
from bnstudy.sweep.summary import objective

REGRESSION = ("data=gaussian", "data.target=linear", "loss=mse", "model.width=8", "steps=30", "threads=1")
SWEEP = ("-m", *REGRESSION, "norm=none,batch", "lr=0.01,0.1", "seed=0,1")


def test_a_regression_has_losses_and_no_accuracy(command):
    status, out, _ = command(*REGRESSION, "lr=0.05")
    assert status == 0
    assert out.splitlines()[-1].split()[1:] == ["finished", "-"]
    run = bnstudy.load_runs("results").iloc[0]
    assert run["status"] == "finished"
    assert run["final.test_accuracy"] is None or math.isnan(run["final.test_accuracy"])
    assert run["final.test_loss"] > 0
    assert "accuracy" not in set(bnstudy.load_metrics("results")["metric"])


@pytest.mark.usefixtures("blank_figures")
def test_the_report_of_a_regression_chooses_learning_rates_by_loss(command):
    assert command(*SWEEP)[0] == 0
    status, out, _ = command(entry=cli.report)
    assert status == 0
    assert "at its best learning rate, 0.1, ends at a test loss of" in out
    assert "accuracy" not in out
    assert "nan" not in out


def test_a_regression_whose_loss_explodes_diverges(command):
    status, out, _ = command(*REGRESSION, "norm=none", "lr=1000", "model.activation=linear")
    assert status == 0
    assert out.splitlines()[-1].split()[1:] == ["diverged", "-"]


def test_cross_entropy_is_refused_for_a_regression_before_training(command, tmp_path):
    words = [word for word in SWEEP if not word.startswith("loss=")]
    status, _, err = command(*words, "loss=cross_entropy")
    assert status == 2
    assert "loss=cross_entropy is not allowed with targets that are not labels: it must be mse." in err
    assert Store(tmp_path / "results").finished() == []


@pytest.mark.parametrize("status", ["finished", "diverged"])
def test_the_objective_of_a_regression_is_a_number(status):
    summary = {
        "status": status,
        "learned": None,
        "dataset": {"guessing": {"val": None}},
        "final": {"val_accuracy": None, "val_loss": 0.5},
    }
    assert objective(summary, "final.val_accuracy") == 0.0
    assert objective(summary, "final.val_loss") == (0.5 if status == "finished" else math.inf)
