"""How a sweep's work is shared out, and bnstudy as the launcher of other sweepers than its own."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf

from bnstudy import load_runs
from bnstudy.config.build import build_launcher
from bnstudy.store.files import conf_dir
from bnstudy.store.runs import Store
from bnstudy.sweep.objective import check_direction, objective
from bnstudy.sweep.settings import Launcher, Objective
from bnstudy.validation import ConfigError

SHORT = ("steps=20", "model.width=16")


def composed(*overrides: str):
    """The `hydra` node of a sweep with these overrides."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        return loader.load_configuration("config", list(overrides), run_mode=RunMode.MULTIRUN).hydra


# ------------------------------------------------------------------------------------------- the keys of hydra.launcher


def test_bnstudy_is_the_default_launcher_and_its_config_says_the_defaults_of_the_class():
    assert build_launcher(composed().launcher) == Launcher()


def test_what_is_asked_of_a_cluster_arrives_as_plain_data_that_can_be_pickled():
    asked = ("executor=slurm", "jobs=8", "partition=gpu", "mem=8GB", "gpus=1", "extra.qos=high", "extra.nice=10")
    made = build_launcher(composed(*(f"hydra.launcher.{key}" for key in asked)).launcher)
    wanted = Launcher("slurm", jobs=8, partition="gpu", mem="8GB", gpus=1, extra={"qos": "high", "nice": 10})
    assert pickle.loads(pickle.dumps(made)) == wanted
    assert type(made.extra) is dict


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"executor": "slrm"}, "executor=slrm is not allowed: .* did you mean slurm"),
        ({"workers": 0}, "hydra.launcher.workers=0 is not allowed: it must be at least 1, or null"),
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
def test_what_cannot_be_asked_for_is_refused(keys, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build_launcher(keys)


# ---------------------------------------------------------------------------------- what a sweeper is told of a run

SUMMARY = {
    "status": "finished",
    "dataset": {"classes": 10},
    "final": {"val_accuracy": 0.9, "val_loss": 0.25, "test_loss": None, "test_accuracy": None},
    "seconds": {"total": 1.5},
}
DIVERGED = SUMMARY | {"status": "diverged"}


@pytest.mark.parametrize(
    ("summary", "key", "value"),
    [
        (SUMMARY, "final.val_accuracy", 0.9),
        (SUMMARY, "seconds.total", 1.5),
        (SUMMARY, "final.test_loss", math.inf),
        (SUMMARY, "final.test_accuracy", 0.1),
        (DIVERGED, "final.val_accuracy", 0.1),
        (DIVERGED, "final.val_loss", math.inf),
        (DIVERGED, "seconds.total", math.inf),
    ],
)
def test_a_diverged_run_counts_as_guessing_and_nothing_is_nan(summary, key, value):
    assert objective(summary, key) == value


@pytest.mark.parametrize(
    ("sweeper", "key", "remedy"),
    [
        ({"direction": "minimize"}, "final.val_accuracy", "hydra.sweeper.direction=minimize .* must be maximize"),
        ({"direction": "maximize"}, "final.val_loss", "hydra.sweeper.direction=maximize .* must be minimize"),
        ({"direction": ["maximize", "minimize"]}, "final.val_accuracy", "must be maximize"),
        ({"ax_config": {"experiment": {"minimize": True}}}, "best.val_accuracy", "minimize=true .* must be false"),
        ({"optim": {"maximize": False}}, "final.test_accuracy", "optim.maximize=false .* must be true"),
    ],
)
def test_a_sweeper_that_would_look_for_the_worst_run_is_refused(sweeper, key, remedy):
    with pytest.raises(ConfigError, match=remedy):
        check_direction(OmegaConf.create(sweeper), key)


@pytest.mark.parametrize(
    ("sweeper", "key"),
    [
        ({"direction": "maximize"}, "final.val_accuracy"),
        ({"optim": {"maximize": False}}, "seconds.total"),
        ({"max_batch_size": 3}, "final.val_accuracy"),
    ],
)
def test_a_sweeper_that_looks_for_the_best_run_or_for_none_is_not(sweeper, key):
    check_direction(OmegaConf.create(sweeper), key)


# ------------------------------------------------------------------------------------------------ batches of jobs


@pytest.fixture
def launch(monkeypatch, tmp_path):
    """`launch(fixed, batch, batch, ...)`: what a sweeper gets that comes with these batches, one after the other."""
    monkeypatch.chdir(tmp_path)

    def sweep(fixed: tuple[str, ...], *batches: list[tuple[str, ...]]) -> list[list[JobReturn]]:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            master = loader.load_configuration("config", list(fixed), run_mode=RunMode.MULTIRUN)
            ours = Plugins.instance().instantiate_launcher(
                hydra_context=HydraContext(config_loader=loader, callbacks=Callbacks()),
                task_function=lambda _: None,
                config=master,
            )
            returns, done = [], 0
            for batch in batches:
                returns.append(list(ours.launch([(*own, *fixed) for own in batch], initial_job_idx=done)))
                done += len(batch)
            return returns

    return sweep


def test_each_job_of_each_batch_returns_the_objective_that_is_stored(launch, capsys):
    first, second = launch(
        ("objective=final.val_loss", *SHORT),
        [("lr=0.1", "norm=batch"), ("lr=0.3", "norm=layer")],
        [("lr=0.5", "norm=layer"), ("lr=0.1", "norm=batch"), ("lr=0.5", "norm=layer")],
    )
    runs = load_runs("results")
    stored = runs.set_index(["lr", "norm"])["final.val_loss"]
    assert set(runs.status) == {"finished"}
    assert [job.return_value for job in first] == [stored[0.1, "BatchNorm"], stored[0.3, "LayerNorm"]]
    assert [job.return_value for job in second] == [
        stored[0.5, "LayerNorm"],
        stored[0.1, "BatchNorm"],
        stored[0.5, "LayerNorm"],
    ]
    assert "#4 lr=0.5 norm=layer: final.val_loss=" in capsys.readouterr().out


def test_a_job_is_described_as_hydras_own_launchers_do(launch):
    ((_, job),) = launch((*SHORT, "progress=false"), [("lr=0.1",), ("lr=0.5", "norm=layer")])
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        hydras = compose("config", ["lr=0.5", "norm=layer", *SHORT, "progress=false"], return_hydra_config=True)
    assert job.status is JobStatus.COMPLETED
    assert job.overrides == ["lr=0.5", "norm=layer", *SHORT, "progress=false"]
    assert job.hydra_cfg.hydra.overrides.task == job.overrides
    assert (job.hydra_cfg.hydra.job.num, job.hydra_cfg.hydra.job.id) == (1, "1")
    assert job.hydra_cfg.hydra.runtime.choices == hydras.hydra.runtime.choices
    assert {**job.cfg} == {key: value for key, value in hydras.items() if key != "hydra"}


def test_the_objectives_that_can_be_named_are_the_numbers_of_a_summary(launch):
    launch((*SHORT, "progress=false"), [("lr=0.1",)])
    (run_id,) = Store(Path("results")).finished()
    summary = Store(Path("results")).summary(run_id)
    assert {f"{part}.{name}" for part in ("final", "best", "seconds") for name in summary[part]} == {
        *get_args(Objective)
    }


def test_a_failed_run_is_a_failed_job_and_the_others_are_done(launch, monkeypatch, capsys):
    with monkeypatch.context() as broken:
        broken.setattr("bnstudy.inits.KaimingNormal.weight_", no_room)
        ((good, bad),) = launch(SHORT, [("init=orthogonal",), ("init=kaiming_normal",)])
    assert good.status is JobStatus.COMPLETED
    assert bad.status is JobStatus.FAILED
    with pytest.raises(Exception, match=r"1 of 2 runs failed.*\n  init=kaiming_normal: MemoryError: no room"):
        _ = bad.return_value
    assert "#1 init=kaiming_normal: failed" in capsys.readouterr().out


def no_room(*_):
    raise MemoryError("no room")


# -------------------------------------------------------------------------------------- other sweepers, as one types it


def test_hydras_basic_sweeper_can_be_chosen(command, tmp_path):
    batches = ("hydra/sweeper=basic", "hydra.sweeper.max_batch_size=2")
    status, out, err = command("-m", *batches, "norm=none,batch", "seed=0,1", *SHORT)
    assert status == 0, err
    assert [line.split(":")[0] for line in out.splitlines() if line.startswith("#")] == [
        "#0 norm=none seed=0",
        "#1 norm=none seed=1",
        "#2 norm=batch seed=0",
        "#3 norm=batch seed=1",
    ]
    assert len(load_runs("results")) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["results"]


def test_hydras_basic_sweeper_ends_with_1_where_a_run_failed(command, monkeypatch):
    monkeypatch.setattr("bnstudy.inits.KaimingNormal.weight_", no_room)
    status, _, err = command("-m", "hydra/sweeper=basic", "init=orthogonal,kaiming_normal", *SHORT)
    assert status == 1
    assert "init=kaiming_normal: MemoryError: no room (traceback in results/runs/" in err
    assert "Traceback" not in err


def test_another_launcher_under_another_sweeper_starts_single_runs(command):
    basic = ("hydra/sweeper=basic", "hydra/launcher=basic")
    assert command("-m", *basic, "norm=none,batch", *SHORT)[0] == 0
    assert len(load_runs("results")) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("hydra/sweeper=basic", "study=quickstart"), "study=quickstart is not allowed with hydra/sweeper=basic"),
        (("hydra/sweeper=basic", "dry_run=true"), "dry_run=true is not allowed with hydra/sweeper=basic"),
        (("hydra/sweeper=basic", "lr=0.1,-1"), "At lr=-1: lr=-1 is not allowed"),
        (("hydra/sweeper=basic", "hydra.launcher.workers=0"), "hydra.launcher.workers=0 is not allowed"),
        (("hydra/sweeper=basic", "+hydra.sweeper.params.lr='1,2'"), "write what it searches as plain overrides"),
        (("hydra/sweeper=no_such",), "hydra/sweeper=no_such is not known. Known: basic, bnstudy"),
        (("hydra/launcher=basic",), "BasicLauncher is not allowed as hydra/launcher"),
    ],
)
def test_what_does_not_go_with_another_sweeper_is_refused(command, arguments, sentence):
    status, out, err = command("-m", *arguments, *SHORT)
    assert (status, out) == (2, "")
    assert sentence in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.skipif(find_spec("optuna") is None, reason="hydra-optuna-sweeper is not installed")
def test_optuna_finds_a_learning_rate_that_does_not_diverge(tmp_path):
    command = [sys.executable, "-c", "from bnstudy.cli import main; main()", "-m", "hydra/sweeper=optuna"]
    search = ["hydra.sweeper.n_trials=8", "hydra.sweeper.n_jobs=4", "lr=tag(log,interval(0.01,10000))", "norm=none"]
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    refused = subprocess.run([*command, *search, *SHORT], **options)
    assert refused.returncode == 2
    assert "hydra.sweeper.direction=minimize is not allowed with objective=final.val_accuracy" in refused.stderr
    done = subprocess.run([*command, *search, *SHORT, "hydra.sweeper.direction=maximize"], **options)
    assert done.returncode == 0, done.stderr
    assert "Best parameters: {'lr': " in done.stderr
    runs = load_runs(tmp_path / "results")
    (result,) = tmp_path.glob("results/multirun/*/optimization_results.yaml")
    best = OmegaConf.load(result)
    assert len(runs) == 8
    assert best.best_value == runs.loc[runs.status == "finished", "final.val_accuracy"].max()
    assert best.best_params.lr in set(runs.lr)
