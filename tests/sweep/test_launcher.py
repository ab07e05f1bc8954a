"""The keys `hydra.launcher.*`, the objective of a run, and other sweepers than bnstudy's."""

from __future__ import annotations

import math
import pickle
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bnstudy import load_runs
from bnstudy.config.build import build_launcher
from bnstudy.store.files import conf_dir
from bnstudy.store.runs import Store
from bnstudy.sweep.settings import Launcher, Objective
from bnstudy.sweep.summary import objective
from bnstudy.validation import ConfigError
from scripts.kill_test import ENTRY, ENVIRONMENT

SHORT = ("steps=20", "model.width=16")


def test_the_options_of_a_cluster_can_be_pickled_and_the_others_have_the_defaults_of_the_class():
    keys = ("executor=slurm", "jobs=8", "partition=gpu", "mem=8GB", "gpus=1", "extra.qos=high", "extra.nice=10")
    overrides = [f"hydra.launcher.{key}" for key in keys]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        node = compose("config", overrides, return_hydra_config=True).hydra.launcher
    made = build_launcher(node)
    wanted = Launcher("slurm", jobs=8, partition="gpu", mem="8GB", gpus=1, extra={"qos": "high", "nice": 10})
    assert pickle.loads(pickle.dumps(made)) == wanted
    assert type(made.extra) is dict


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"executor": "slrm"}, "executor=slrm is not allowed: .* did you mean slurm"),
        ({"executor": "local"}, "executor=local is not allowed"),
        ({"workers": 0}, "hydra.launcher.workers=0 is not allowed: it must be from 1 to"),
        ({"workers": 10**6}, "hydra.launcher.workers=1000000 is not allowed: it must be from 1 to"),
        (
            {"executor": "slurm", "partition": "gpu\n#SBATCH --wrap=evil"},
            r"hydra.launcher.partition=gpu\\n#SBATCH --wrap=evil is not allowed: it contains control characters.",
        ),
        (
            {"executor": "slurm", "extra": {"qos": "a\nb"}},
            r"hydra.launcher.extra.qos=a\\nb is not allowed: it contains control characters.",
        ),
        (
            {"executor": "slurm", "extra": {"a\n#SBATCH --b": 1}},
            r"hydra.launcher.extra.a\\n#SBATCH --b=1 is not allowed: it contains control characters.",
        ),
        ({"workers": "many"}, "hydra.launcher.workers=many is not allowed: it must be a whole number"),
        ({"jobs": 0}, "hydra.launcher.jobs=0 is not allowed"),
        ({"time": 0.5}, "hydra.launcher.time=0.5 is not allowed: it must be a whole number"),
        ({"cpus": 0}, "hydra.launcher.cpus=0 is not allowed"),
        ({"gpus": -1}, "hydra.launcher.gpus=-1 is not allowed"),
        ({"executor": "slurm", "mem": "much"}, "hydra.launcher.mem=much is not allowed: .* such as 8GB"),
        ({"partition": "gpu"}, "partition=gpu is not allowed with hydra.launcher.executor=auto: .*executor=slurm"),
        ({"wrokers": 2}, "hydra.launcher.wrokers is not a known key; did you mean hydra.launcher.workers?"),
        ({"_target_": "hydra_plugins.x.JoblibLauncher"}, "JoblibLauncher is not allowed as hydra/launcher"),
    ],
    ids=str,
)
def test_a_wrong_key_or_value_is_refused(keys, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build_launcher(keys)


SUMMARY = {
    "status": "finished",
    "learned": True,
    "dataset": {"guessing": {"val": 0.1, "test": 0.2}},
    "final": {"val_accuracy": 0.9, "val_loss": 0.25, "test_loss": None, "test_accuracy": None},
    "seconds": {"total": 1.5},
}
DIVERGED = SUMMARY | {"status": "diverged", "learned": None}
NOT_LEARNED = SUMMARY | {"learned": False}


@pytest.mark.parametrize(
    ("summary", "key", "value"),
    [
        (SUMMARY, "final.val_accuracy", 0.9),
        (SUMMARY, "seconds.total", 1.5),
        (SUMMARY, "final.test_loss", math.inf),
        (SUMMARY, "final.test_accuracy", 0.2),
        (NOT_LEARNED, "final.val_accuracy", 0.1),
        (NOT_LEARNED, "final.val_loss", 0.25),
        (DIVERGED, "final.val_accuracy", 0.1),
        (DIVERGED, "final.val_loss", math.inf),
        (DIVERGED, "seconds.total", math.inf),
    ],
)
def test_the_objective_of_a_diverged_run_is_that_of_guessing_and_never_nan(summary, key, value):
    assert objective(summary, key) == value


def test_the_allowed_objectives_are_the_numbers_of_a_summary(command):
    assert command(*SHORT)[0] == 0
    (run_id,) = Store(Path("results")).finished()
    summary = Store(Path("results")).summary(run_id)
    assert {f"{part}.{name}" for part in ("final", "best", "seconds") for name in summary[part]} == {
        *get_args(Objective)
    }


@pytest.mark.parametrize("launcher", [(), ("hydra/launcher=basic",)])
def test_hydras_basic_sweeper_trains_one_run_after_another(command, tmp_path, launcher):
    status, _, err = command("-m", "hydra/sweeper=basic", *launcher, "norm=none,batch", "seed=0,1", *SHORT)
    assert status == 0, err
    assert len(load_runs("results")) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["results"]


def test_hydras_basic_sweeper_ends_with_status_1_if_a_run_failed(command, monkeypatch):
    def no_memory(*_):
        raise MemoryError("no room")

    monkeypatch.setattr("bnstudy.inits.KaimingNormal.weight_", no_memory)
    status, _, err = command("-m", "hydra/sweeper=basic", "init=orthogonal,kaiming_normal", *SHORT)
    assert status == 1
    assert "MemoryError: no room (traceback in results/runs/" in err
    assert "Traceback" not in err
    assert len(load_runs("results")) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("hydra/sweeper=basic", "study=quickstart"),
            "study=quickstart is a sweep: leave hydra.mode and hydra/sweeper",
        ),
        (("hydra/sweeper=basic", "lr=0.1,-1"), "lr=-1 is not allowed"),
        (("hydra/sweeper=basic", "hydra.launcher.workers=0"), "hydra.launcher.workers=0 is not allowed"),
        (("hydra/sweeper=basic", "+hydra.sweeper.params.lr='1,2'"), "write what it searches as plain overrides"),
        (("hydra/sweeper=no_such",), "hydra/sweeper=no_such is not known. Known: basic, bnstudy"),
        (("hydra/launcher=basic",), "BasicLauncher is not allowed as hydra/launcher"),
    ],
)
def test_options_that_do_not_fit_another_sweeper_are_refused(command, arguments, sentence):
    status, _, err = command("-m", *arguments, *SHORT)
    assert status == 2
    assert sentence in err
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.skipif(find_spec("optuna") is None, reason="hydra-optuna-sweeper is not installed")
def test_optuna_finds_a_learning_rate_that_does_not_diverge(tmp_path):
    search = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=8"]
    search += ["hydra.sweeper.n_jobs=4", "lr=tag(log,interval(0.01,10000))", "norm=none"]
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "HYDRA_FULL_ERROR"}
    options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run([*ENTRY, *search, *SHORT], **options)
    assert done.returncode == 0, done.stderr
    runs = load_runs(tmp_path / "results")
    (result,) = tmp_path.glob("results/multirun/*/optimization_results.yaml")
    best = OmegaConf.load(result)
    assert len(runs) == 8
    assert best.best_value == runs.loc[runs.status == "finished", "final.val_accuracy"].max()
    assert best.best_params.lr in set(runs.lr)
