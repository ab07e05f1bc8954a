"""Sweeps as array jobs: what a job does, what is submitted, waiting; and a real Slurm if there is one."""

from __future__ import annotations

import importlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
from itertools import count, islice
from pathlib import Path
from unittest.mock import Mock

import pytest
from submitit.core.job_environment import SignalHandler
from submitit.core.utils import DelayedSubmission, JobPaths

from bnstudy.store.files import write_json, write_text
from bnstudy.store.runs import Store
from bnstudy.sweep import jobs, slurm
from bnstudy.sweep.cost import Method
from bnstudy.sweep.jobs import Submission, load_live, wait_for
from bnstudy.sweep.messages import record_error
from bnstudy.sweep.plan import Stack
from bnstudy.sweep.request import PlannedRun
from bnstudy.sweep.settings import Launcher, Settings
from bnstudy.sweep.signals import Interrupted
from bnstudy.sweep.slurm import ArrayTask, submit
from bnstudy.validation import ConfigError
from tests.conftest import spec_of

ROOT = Path(__file__).parents[2]
EAGER = Method("stacked", 32, compiled=False, norms_vary=False)


def launcher(**keys) -> Launcher:
    return Launcher(executor="slurm", **{"cpus": 1, **keys})


def stacks_of(*sizes: int, steps: int = 20) -> list[Stack]:
    """Stacks of these sizes, of different runs."""
    runs = (PlannedRun(spec_of(f"seed={seed}", f"steps={steps}"), f"seed={seed}", "") for seed in count())
    return [Stack(tuple(islice(runs, size)), EAGER, steps) for size in sizes]


def ids(stacks: list[Stack]) -> list[str]:
    return [run_id for stack in stacks for run_id in stack.run_ids]


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    return Settings(results_dir="results")


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """`programs(squeue="echo ...")` puts shell scripts of these names, and nothing else of Slurm, on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def make(**scripts: str) -> None:
        for name, script in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)

    return make


@pytest.fixture
def no_waiting(monkeypatch):
    for name in ("LOOK_SECONDS", "SQUEUE_SECONDS", "SETTLE_SECONDS"):
        monkeypatch.setattr(jobs, name, 0.01)


@pytest.fixture
def worker(monkeypatch):
    """Replaces the worker; its `call_args_list` holds the arguments of its calls."""
    work = Mock()
    monkeypatch.setattr(slurm, "work", work)
    return work


def task_of(settings: Settings, stacks: list) -> ArrayTask:
    plan = Path("plan.pkl").absolute()
    plan.write_bytes(pickle.dumps((settings, stacks)))
    return ArrayTask(os.getcwd(), tuple(sys.path), plan, "bnstudy-0")


def test_a_job_finds_the_users_classes_in_the_directory_of_the_command(settings, worker, tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "norms_of_a_job.py").write_text("class MyNorm:\n    pass\n")
    monkeypatch.chdir(mine)
    with monkeypatch.context() as here:
        here.syspath_prepend(mine)
        own = importlib.import_module("norms_of_a_job").MyNorm()
        task = pickle.dumps(task_of(settings, [own]))
        del sys.modules["norms_of_a_job"]
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(mine)])
    monkeypatch.chdir("/")
    pickle.loads(task)()
    assert Path.cwd() == mine
    assert type(worker.call_args.args[1][0]).__name__ == "MyNorm"


@pytest.fixture
def in_slurm(tmp_path, monkeypatch):
    """`in_slurm(task)` runs a task as submitit does in a Slurm job; `in_slurm.requeued` counts."""
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")

    class Environment:
        global_rank, requeued = 0, 0

        def _requeue(self, _countdown: int) -> None:
            self.requeued += 1

        def __call__(self, task: ArrayTask) -> None:
            submission = DelayedSubmission(task)
            submission.set_timeout(timeout_min=60, max_num_timeout=5)
            handler = SignalHandler(self, self.paths, submission)
            old = [signal.signal(signal.SIGUSR2, handler.checkpoint_and_try_requeue)]
            old += [signal.signal(signal.SIGTERM, handler.bypass)]
            try:
                task()
            finally:
                signal.signal(signal.SIGUSR2, old[0])
                signal.signal(signal.SIGTERM, old[1])

    environment = Environment()
    environment.paths = JobPaths(tmp_path, "7")
    return environment


def test_a_job_that_runs_out_of_time_is_requeued_with_the_same_task(settings, worker, in_slurm):
    worker.side_effect = [Interrupted(signal.SIGUSR2)]
    task = task_of(settings, stacks_of(2))
    with pytest.raises(SystemExit):
        in_slurm(task)
    assert in_slurm.requeued == 1
    assert DelayedSubmission.load(in_slurm.paths.submitted_pickle).function == task


def test_after_sigterm_a_job_goes_on_until_slurm_requeues_or_kills_it(settings, worker, in_slurm):
    worker.side_effect = [Interrupted(signal.SIGTERM), []]
    in_slurm(task_of(settings, stacks_of(2)))
    assert (worker.call_count, in_slurm.requeued) == (2, 0)


def test_the_error_without_slurm_names_the_missing_program(settings, programs):
    programs()
    with pytest.raises(ConfigError, match=r"^hydra.launcher.executor=slurm is not allowed here: sbatch is not found; "):
        submit(settings, launcher(), stacks_of(1))


def test_the_keys_of_the_launcher_reach_sbatch(settings, programs):
    programs(sbatch="echo Submitted batch job 7", squeue="true", srun="true")
    keys = {"time": 20, "mem": "8GB", "gpus": 1, "cpus": 4, "partition": "main", "account": "lab"}
    extra = {"constraint": "a100", "setup": ["module load cuda"], "exclusive": True, "qos": None}
    (submission,) = submit(settings, launcher(**keys, extra=extra), stacks_of(1, 1))
    script = Path(f"results/slurm/{submission.name}/7_submission.sh").read_text()
    flags = {line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")}
    assert {"time=20", "mem=8GB", "gpus-per-node=1", "cpus-per-task=4", "partition=main", "account=lab"} <= flags
    assert {"constraint=a100", "exclusive", "requeue", "signal=USR2@90", "array=0-1%2"} <= flags
    assert not {flag for flag in flags if flag.startswith("qos")}
    assert "\nmodule load cuda\n" in script
    assert "--cpus-per-task=4" in script.splitlines()[-1]
    assert submission.job_ids == ("7_0", "7_1")


def test_a_refusal_of_sbatch_is_reported_in_its_words(settings, programs, capfd):
    programs(sbatch="echo sbatch: error: Invalid partition name specified >&2; exit 1", squeue="true", srun="true")
    with pytest.raises(ConfigError, match=r"this cluster does not allow: Invalid partition name specified\.$"):
        submit(settings, launcher(partition="nope"), stacks_of(1))
    assert capfd.readouterr().err == ""


def test_jobs_of_an_earlier_command_are_waited_for_and_their_runs_not_submitted_again(settings, programs):
    programs(sbatch="echo Submitted batch job 7", squeue="true", srun="true")
    (first,) = submit(settings, launcher(), stacks_of(2, 1))
    programs(squeue=f"echo '7_0 {first.name}|RUNNING'; echo '7_1 {first.name}|CANCELLED'")
    programs(sbatch="echo Submitted batch job 8")
    failed = first.run_ids[0]
    record_error(Store(settings.results).run(failed).error, first.name, "ValueError: no such norm")
    live, new = submit(settings, launcher(), stacks_of(2, 1, 4))
    assert (live.run_ids, new.job_ids) == (first.run_ids[1:], ("8_0", "8_1"))
    assert failed in new.run_ids
    assert sorted(live.run_ids + new.run_ids) == sorted(ids(stacks_of(2, 1, 4)))


def test_a_plan_holds_settings_for_another_machine(settings, programs, tmp_path):
    programs(sbatch="echo Submitted batch job 7", squeue="true", srun="true")
    (submission,) = submit(settings, launcher(cpus=3), stacks_of(2, 1))
    there, stacks = pickle.loads((submission.folder / submission.name / "plan.pkl").read_bytes())
    assert (there.results_dir, there.threads) == (str(tmp_path / "results"), 3)
    assert ids(stacks) == ids(stacks_of(2, 1))


def submission_of(folder: Path, *run_ids: str) -> Submission:
    write_text(
        folder / "bnstudy-0" / "7_0_0_log.err",
        "slurmstepd: error: Detected 1 oom_kill event\nsrun: error: task 0: Killed\n",
    )
    return Submission(folder, "bnstudy-0", ("7_0", "7_1"), run_ids)


@pytest.mark.parametrize("jobs_entry", [{"jobs": {"7_0": ["a"]}}, {"jobs": ["7_0"], "run_ids": ["a"]}])
def test_a_job_with_the_same_number_but_another_name_is_not_ours(tmp_path, programs, jobs_entry):
    """Both formats of the file are read."""
    for name, live in (("bnstudy-0", ["a"]), ("somebody-else", [])):
        write_json(tmp_path / "slurm" / "bnstudy-0.json", {"submitted": 0.0, **jobs_entry})
        programs(squeue=f"echo '7_0 {name}|RUNNING'")
        assert [run_id for submission in load_live(Store(tmp_path), {"a"}) for run_id in submission.run_ids] == live
    assert not list(tmp_path.glob("slurm/*.json"))


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "null", "[" * 100_000, '{"jobs": 3, "run_ids": []}', '{"jobs": ["../x"], "run_ids": ["a"]}',
     '{"jobs": ["7"], "run_ids": [3]}', '{"jobs": {"7": 3}}', '{"jobs": [["7"]], "run_ids": ["a"]}'],
)  # fmt: skip
def test_a_damaged_submission_is_left_out_and_named(tmp_path, programs, caplog, content):
    programs(squeue="echo '7_0 bnstudy-0|RUNNING'")
    write_json(tmp_path / "slurm" / "bnstudy-0.json", {"jobs": ["7_0"], "run_ids": ["a"]})
    damaged = tmp_path / "slurm" / "bnstudy-1.json"
    damaged.write_text(content)
    assert [submission.name for submission in load_live(Store(tmp_path), {"a"})] == ["bnstudy-0"]
    assert f"{damaged} is damaged" in caplog.text
    assert damaged.exists()


def test_no_job_reads_a_file_that_was_in_the_store_before(settings, programs):
    programs(sbatch="echo Submitted batch job 7", squeue="true", srun="true")
    planted = Path("results/slurm/7_submitted.pkl")
    planted.parent.mkdir(parents=True)
    planted.write_bytes(b"code")
    (submission,) = submit(settings, launcher(), stacks_of(1))
    own = submission.folder / submission.name
    assert own.stat().st_mode & 0o777 == 0o700
    script = (own / "7_submission.sh").read_text()
    assert f"submitit.core._submit {own.absolute()}" in script
    assert planted.read_bytes() == b"code"
    assert (own / "7_submitted.pkl").exists()


def test_the_files_of_a_submission_that_is_over_are_not_deleted_through_a_link(tmp_path, programs):
    programs(squeue="true")
    home = tmp_path / "home"
    write_text(home / "plan.pkl", "mine")
    write_json(tmp_path / "slurm" / "bnstudy-0.json", {"jobs": ["7_0"], "run_ids": ["a"]})
    (tmp_path / "slurm" / "bnstudy-0").symlink_to(home)
    assert load_live(Store(tmp_path), {"a"}) == []
    assert (home / "plan.pkl").exists()


@pytest.mark.usefixtures("no_waiting")
def test_missing_runs_are_reported_with_their_own_error_or_the_state_and_log_of_a_job(tmp_path, programs):
    programs(squeue="echo '7_0 bnstudy-0|OUT_OF_MEMORY'; echo '7_1 bnstudy-0|COMPLETED'")
    submission, store, finished = submission_of(tmp_path, "stored", "missing", "failed"), Store(tmp_path), []
    write_json(store.run("stored").summary, {"status": "finished"})
    record_error(store.run("failed").error, "bnstudy-0", "ValueError: no such norm", "Traceback ...\n")
    record_error(store.run("missing").error, "bnstudy-1", "ValueError: of an earlier command")
    log = submission.log("7_0")
    why = f"job 7_0 ended as OUT_OF_MEMORY without it; {log}: slurmstepd: error: Detected 1 oom_kill event"
    missing = wait_for(store, [submission], lambda new, _: finished.extend(new))
    assert missing == {"missing": why, "failed": "ValueError: no such norm"}
    assert finished == ["stored"]


@pytest.mark.usefixtures("no_waiting")
def test_while_slurm_does_not_answer_the_store_alone_is_watched(tmp_path, programs):
    programs(squeue="exit 1")
    looks = []

    def on_progress(new, *_) -> None:
        looks.append(new)
        if len(looks) == 3:
            write_json(Store(tmp_path).run("a").summary, {"status": "finished"})

    assert wait_for(Store(tmp_path), [submission_of(tmp_path, "a")], on_progress) == {}
    assert looks == [[], [], [], ["a"]]


@pytest.mark.usefixtures("no_waiting")
def test_an_interrupted_command_says_that_its_jobs_go_on(tmp_path, programs, capfd):
    programs(squeue="echo '7_0 bnstudy-0|RUNNING'")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as stopped:
        wait_for(Store(tmp_path), [submission_of(tmp_path, "a")], lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert stopped.value.exit_status == 143
    assert signal.getsignal(signal.SIGTERM) is before
    err = capfd.readouterr().err
    assert "The jobs go on in Slurm" in err
    assert "scancel --name=bnstudy-0 stops them." in err


@pytest.fixture
def importable(monkeypatch):
    """Jobs import the package that these tests import."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))


def slurm_answers() -> bool:
    return bool(shutil.which("sinfo")) and subprocess.run(["sinfo"], capture_output=True).returncode == 0


needs_slurm = pytest.mark.skipif(not slurm_answers(), reason="no Slurm answers here; scripts/slurm_node.sh starts one")


@needs_slurm
@pytest.mark.slow
@pytest.mark.usefixtures("importable")
def test_slurm_trains_a_sweep(settings):
    stacks, finished = stacks_of(2, 1, 1), []
    submitted = submit(settings, launcher(jobs=2), stacks)
    again = submit(settings, launcher(jobs=2), stacks)
    assert [submission.name for submission in again] == [submission.name for submission in submitted]
    assert wait_for(Store(settings.results), again, lambda new, _: finished.extend(new)) == {}
    assert sorted(finished) == Store(settings.results).finished() == sorted(ids(stacks))


@needs_slurm
@pytest.mark.slow
@pytest.mark.usefixtures("importable")
def test_a_slurm_job_that_runs_out_of_time_goes_on_where_it_stopped(settings):
    stacks = stacks_of(1, steps=6000)
    settings = Settings(results_dir="results", checkpoint_seconds=0.5)
    (submission,) = submit(settings, launcher(), stacks)
    (job_id,) = submission.job_ids
    commands = iter([["scancel", "--signal=USR2", job_id]])

    def signal_once_it_trains(*_) -> None:
        if Store(settings.results).run(submission.run_ids[0]).checkpoint.exists():
            subprocess.run(next(commands, ["true"]), check=True)

    assert wait_for(Store(settings.results), [submission], signal_once_it_trains) == {}
    err = submission.log(job_id)
    log = err.with_suffix(".out").read_text() + err.read_text()
    assert log.count("Requeued job") == 1
    assert "going on from step" in log
