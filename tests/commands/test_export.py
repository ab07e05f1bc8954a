"""Metrics of stored runs for other tools, through the loggers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bnstudy import load_metrics
from tests.test_cli import SHORT


@pytest.fixture
def exported(command):
    """`exported("csv", ...)` exports from a store with four runs of two norms: (exit status, stdout, stderr)."""
    command("-m", "norm=none,batch", "seed=0,1", "lr=0.1", "probe=none", "progress=false", *SHORT)
    return lambda *words: command("export", *words)


def test_a_csv_file_holds_the_metrics_of_its_run(exported):
    assert exported("csv", "to=there") == (0, "Exported 4 runs to there.\n", "")
    files = sorted(Path("there").iterdir())
    assert len(files) == 4
    for path in files:
        stored = load_metrics(run_ids=[path.stem]).drop(columns="run_id")
        pd.testing.assert_frame_equal(
            pd.read_csv(path, keep_default_na=False), stored.astype(dict.fromkeys(("split", "metric", "layer"), str))
        )


def test_runs_are_chosen_by_their_settings_or_ids(exported):
    assert exported("csv", "norm=batch", "seed=1")[1] == "Exported 1 run to results/csv.\n"
    (path,) = Path("results/csv").iterdir()
    assert exported("csv", f"runs={path.stem[:8]}", "to=there")[1] == "Exported 1 run to there.\n"
    assert [p.name for p in Path("there").iterdir()] == [path.name]


def test_a_logger_of_the_users_own_folder_is_found(exported):
    Path("mine/logger").mkdir(parents=True)
    Path("mine/logger/there.yaml").write_text("_target_: bnstudy.loggers.csv.CSV\ndir: there\n")
    for flag in (["--config-dir", "mine"], ["--config-dir=mine"], ["-cd", "mine"]):
        assert exported("there", *flag)[1] == "Exported 4 runs to there.\n"
        assert exported(*flag, "there")[1] == "Exported 4 runs to there.\n"
    assert len(list(Path("there").iterdir())) == 4


def test_a_damaged_run_is_named_and_the_others_are_exported(exported):
    metrics = sorted(Path("results/runs").glob("*/metrics.parquet"))[0]
    metrics.write_bytes(b"nothing")
    status, out, _ = exported("csv")
    assert status == 1
    assert out.startswith("Exported 3 runs to results/csv.\n")
    assert f"{metrics.parent} is damaged" in out


@pytest.mark.usefixtures("exported")
def test_a_logger_that_gets_no_finished_runs_names_the_command_that_sends_them(command):
    words = ("-m", "norm=none,batch", "seed=0,1", "lr=0.1", "probe=none", *SHORT)
    advice = "The logger gets only the runs that are trained now; for the finished ones: bnstudy export csv"
    assert advice in command(*words, "logger=csv")[2]
    assert "bnstudy export" not in command(*words)[2]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "bnstudy export: Name where to export to: it must be one of csv, mlflow, tensorboard, wandb."),
        (("tensorbord",), "did you mean tensorboard?"),
        (("csv", "norm=layer"), "There is no finished run like this in results"),
        (("mlflow", "to=there"), "to=there is not allowed with mlflow: it has no folder."),
    ],
)
def test_what_cannot_be_exported_is_explained(exported, words, sentence):
    status, _, err = exported(*words)
    assert status == 2
    assert sentence in err
