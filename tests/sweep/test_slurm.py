"""Sweeps as array jobs: how work is dealt out, what a job does, what is submitted; and a real Slurm where one is."""

from __future__ import annotations

import importlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from submitit.core.job_environment import SignalHandler
from submitit.core.utils import DelayedSubmission, JobPaths

from bnstudy.store.files import write_json, write_text
from bnstudy.store.runs import Store
from bnstudy.sweep import jobs
from bnstudy.sweep.cost import Shape
from bnstudy.sweep.jobs import Job, Left, remember, still_queued, watch
from bnstudy.sweep.plan import Stack
from bnstudy.sweep.request import PlannedRun
from bnstudy.sweep.settings import Launcher, Settings
from bnstudy.sweep.signals import Interrupted
from bnstudy.sweep.slurm import ArrayTask, shares, submit
from bnstudy.validation import ConfigError
from tests.conftest import spec_of

ROOT = Path(__file__).parents[2]
EAGER = Shape("stacked", 32, compiled=False, free=False)


def launcher(executor: str, **keys) -> Launcher:
    return Launcher(executor=executor, **{"cpus": 1, **keys})


def planned(*overrides: str) -> PlannedRun:
    return PlannedRun(spec_of(*overrides), " ".join(overrides), "")


def stacks_of(*lengths: int, steps: int = 20) -> list:
    """Stacks of so many runs, all different."""
    seeds = iter(range(sum(lengths)))
    return [
        Stack(tuple(planned(f"seed={next(seeds)}", f"steps={steps}") for _ in range(n)), EAGER, steps) for n in lengths
    ]


def ids(stacks) -> list[str]:
    return [run.spec.run_id for stack in stacks for run in stack.runs]


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    return Settings(results_dir="results")


@pytest.fixture
def worker(monkeypatch):
    """In place of the worker: `worker.does(settings, stacks)` is called for each call of `work`."""
    module = ModuleType("bnstudy.sweep.worker")
    module.calls = []
    module.does = lambda *_: None

    def work(settings, stacks):
        module.calls.append((settings, stacks))
        module.does(settings, stacks)

    module.work = work
    monkeypatch.setitem(sys.modules, "bnstudy.sweep.worker", module)
    return module


def store_all(settings, stacks) -> None:
    for run_id in ids(stacks):
        write_json(Store(settings.results).run(run_id).summary, {"status": "finished"})


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
    for name in ("LOOK_SECONDS", "ASK_SECONDS", "SETTLE_SECONDS"):
        monkeypatch.setattr(jobs, name, 0.01)


# ------------------------------------------------------------------------------------------ dealing out


def test_shares_hold_every_stack_once_and_are_of_nearly_equal_work():
    stacks = stacks_of(7, 5, 4, 3, 2, 1)
    dealt = shares(stacks, 3)
    assert sorted(run_id for share in dealt for run_id in ids(share)) == sorted(ids(stacks))
    assert sorted(len(ids(share)) for share in dealt) == [7, 7, 8]


def test_there_are_no_more_shares_than_stacks():
    assert [len(share) for share in shares(stacks_of(4, 4), 32)] == [1, 1]


def test_long_runs_weigh_more_than_short_ones():
    long, *short = [*stacks_of(1, steps=300), *stacks_of(1, 1, 1, steps=100)]
    assert shares([long, *short], 2) == [[long], short]


# ------------------------------------------------------------------------------------------------ a job


def test_a_job_finds_the_users_own_classes_where_the_command_stood(settings, worker, tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "norms_of_a_job.py").write_text("class MyNorm:\n    pass\n")
    monkeypatch.chdir(mine)
    with monkeypatch.context() as here:
        here.syspath_prepend(mine)
        own = importlib.import_module("norms_of_a_job").MyNorm()
        task = pickle.dumps(ArrayTask.of(settings, [own]))
        del sys.modules["norms_of_a_job"]
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(mine)])
    monkeypatch.chdir("/")
    pickle.loads(task)()
    assert Path.cwd() == mine
    assert type(worker.calls[0][1][0]).__name__ == "MyNorm"


@pytest.fixture
def in_slurm(tmp_path, monkeypatch):
    """`in_slurm(task)` runs a task as submitit does in a job of Slurm's; `in_slurm.requeued` counts."""
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


def interrupt_once(signum: int, worker):
    def does(*_) -> None:
        if len(worker.calls) == 1:
            raise Interrupted(signum)

    return does


def test_out_of_time_a_job_is_requeued_with_the_same_work(settings, worker, in_slurm):
    worker.does = interrupt_once(signal.SIGUSR2, worker)
    task = ArrayTask.of(settings, stacks_of(2))
    with pytest.raises(SystemExit):
        in_slurm(task)
    assert in_slurm.requeued == 1
    assert DelayedSubmission.load(in_slurm.paths.submitted_pickle).function == task


def test_after_sigterm_a_job_goes_on_until_slurm_requeues_or_kills_it(settings, worker, in_slurm):
    worker.does = interrupt_once(signal.SIGTERM, worker)
    in_slurm(ArrayTask.of(settings, stacks_of(2)))
    assert (len(worker.calls), in_slurm.requeued) == (2, 0)


# ------------------------------------------------------------------------------- submission and waiting


def test_debug_trains_in_this_process_with_folders_and_threads_spelled_out(settings, worker, tmp_path):
    worker.does = store_all
    stacks, seen = stacks_of(2, 1), []
    submitted = submit(settings, launcher("debug", cpus=3, jobs=2), stacks)
    assert watch(Store(settings.results), submitted, lambda new, _: seen.extend(new)) == {}
    assert sorted(seen) == sorted(ids(stacks))
    assert [call[0].results_dir for call in worker.calls] == [str(tmp_path / "results")] * 2
    assert worker.calls[0][0].threads == 3


@pytest.mark.usefixtures("no_waiting")
def test_a_run_that_failed_is_reported_with_its_own_error(settings, worker):
    stacks = stacks_of(1)

    def fail(settings, stacks) -> None:
        write_text(Store(settings.results).run(ids(stacks)[0]).error, "Traceback ...\nValueError: no such norm\n")

    worker.does = fail
    submitted = submit(settings, launcher("debug"), stacks)
    missing = watch(Store(settings.results), submitted, lambda *_: None)
    assert missing == {ids(stacks)[0]: "ValueError: no such norm"}


def test_without_slurm_the_error_says_what_is_missing(settings, programs):
    programs()
    with pytest.raises(ConfigError, match=r"^hydra.launcher.executor=slurm is not allowed here: sbatch is not found; "):
        submit(settings, launcher("slurm"), stacks_of(1))


def test_the_launchers_keys_reach_sbatch(settings, programs):
    programs(sbatch="echo Submitted batch job 7", squeue="true", srun="true")
    keys = {"time": 20, "mem": "8GB", "gpus": 1, "cpus": 4, "partition": "main", "account": "lab"}
    extra = {"constraint": "a100", "setup": ["module load cuda"], "exclusive": True, "qos": None}
    submitted = submit(settings, launcher("slurm", **keys, extra=extra), stacks_of(1, 1))
    script = Path("results/slurm/7_submission.sh").read_text()
    flags = {line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")}
    assert {"time=20", "mem=8GB", "gpus-per-node=1", "cpus-per-task=4", "partition=main", "account=lab"} <= flags
    assert {"constraint=a100", "exclusive", "requeue", "signal=USR2@90", "array=0-1%2"} <= flags
    assert not {flag for flag in flags if flag.startswith("qos")}
    assert "\nmodule load cuda\n" in script
    assert "--cpus-per-task=4" in script.splitlines()[-1]
    assert [job.id for job in submitted] == ["7_0", "7_1"]


def test_what_sbatch_refuses_is_told_in_its_words(settings, programs, capfd):
    programs(sbatch="echo sbatch: error: Invalid partition name specified >&2; exit 1", squeue="true", srun="true")
    with pytest.raises(ConfigError, match=r"this cluster does not give: Invalid partition name specified\.$"):
        submit(settings, launcher("slurm", partition="nope"), stacks_of(1))
    assert capfd.readouterr().err == ""


def test_what_an_earlier_command_has_queued_is_waited_for_and_not_submitted_again(settings, programs):
    programs(sbatch="echo Submitted batch job 7", squeue="true", srun="true")
    stacks = stacks_of(2, 1)
    first = submit(settings, launcher("slurm"), stacks)
    programs(squeue=f"echo '7_0 {first[0].name}|RUNNING'; echo '7_1 {first[0].name}|CANCELLED'")
    programs(sbatch="echo Submitted batch job 8")
    second = submit(settings, launcher("slurm"), stacks)
    assert [(job.id, job.run_ids) for job in second] == [("7_0", first[0].run_ids), ("8", first[1].run_ids)]


def test_a_job_of_the_same_number_but_another_name_is_not_taken_for_ours(tmp_path, programs):
    programs(squeue="echo '7_0 somebody-elses|RUNNING'")
    remember(tmp_path, "bnstudy-0", [Job("7_0", "bnstudy-0", ("a",), tmp_path, 0.0)])
    assert still_queued(tmp_path, {"a"}) == []
    assert not list(tmp_path.glob("*.json"))


def submitted_job(tmp_path: Path, *run_ids: str) -> Job:
    write_text(
        tmp_path / "7_0_0_log.err", "slurmstepd: error: Detected 1 oom_kill event\nsrun: error: task 0: Killed\n"
    )
    return Job("7_0", "bnstudy-0", run_ids, tmp_path / "7_0_0_log.err", time.time())


@pytest.mark.usefixtures("no_waiting")
def test_a_job_that_is_killed_is_reported_with_its_state_and_log(tmp_path, programs):
    programs(squeue="echo '7_0 bnstudy-0|OUT_OF_MEMORY'")
    job = submitted_job(tmp_path, "there", "missing")
    write_json(Store(tmp_path).run("there").summary, {"status": "finished"})
    write_text(Store(tmp_path).run("missing").error, "ValueError: of an earlier command\n")
    os.utime(Store(tmp_path).run("missing").error, (0, 0))
    said = f"job 7_0 ended as OUT_OF_MEMORY without it; {job.log}: slurmstepd: error: Detected 1 oom_kill event"
    assert watch(Store(tmp_path), [job], lambda *_: None) == {"missing": said}


@pytest.mark.usefixtures("no_waiting")
def test_while_slurm_does_not_answer_the_store_alone_is_watched(tmp_path, programs):
    programs(squeue="exit 1")
    looks = []

    def on_progress(new, *_) -> None:
        looks.append(new)
        if len(looks) == 3:
            write_json(Store(tmp_path).run("a").summary, {"status": "finished"})

    assert watch(Store(tmp_path), [submitted_job(tmp_path, "a")], on_progress) == {}
    assert looks == [[], [], [], ["a"]]


def test_leaving_says_that_the_jobs_go_on(tmp_path, programs):
    programs(squeue="echo '7_0 bnstudy-0|RUNNING'")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Left, match=r"jobs go on in Slurm.*scancel --name=bnstudy-0 stops them\.") as left:
        watch(Store(tmp_path), [submitted_job(tmp_path, "a")], lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert left.value.exit_status == 143
    assert signal.getsignal(signal.SIGTERM) is before


# --------------------------------------------------------------------------------------- for real


@pytest.fixture
def importable(monkeypatch):
    """Jobs find the package where these tests found it."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))


@pytest.mark.slow
@pytest.mark.usefixtures("importable")
def test_local_jobs_train_a_sweep(settings):
    stacks, seen = stacks_of(2, 1), []
    submitted = submit(settings, launcher("local", workers=2), stacks)
    assert len(submitted) == 2
    assert watch(Store(settings.results), submitted, lambda new, _: seen.extend(new)) == {}
    assert sorted(seen) == Store(settings.results).finished() == sorted(ids(stacks))


@pytest.mark.slow
@pytest.mark.usefixtures("importable")
def test_local_jobs_end_with_the_command_and_save_what_they_train(settings):
    stacks = stacks_of(1, steps=200_000)
    settings = Settings(results_dir="results", checkpoint_seconds=1.0)
    checkpoint = Store(settings.results).run(ids(stacks)[0]).checkpoint
    submitted = submit(settings, launcher("local"), stacks)

    def leave_once_it_trains(*_) -> None:
        if checkpoint.exists():
            checkpoint.unlink()
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Left, match="are saved"):
        watch(Store(settings.results), submitted, leave_once_it_trains)
    assert checkpoint.exists()
    assert submitted[0].handle.done()


def slurm_answers() -> bool:
    return bool(shutil.which("sinfo")) and subprocess.run(["sinfo"], capture_output=True).returncode == 0


needs_slurm = pytest.mark.skipif(not slurm_answers(), reason="no Slurm answers here; scripts/slurm_node.sh starts one")


@needs_slurm
@pytest.mark.slow
@pytest.mark.usefixtures("importable")
def test_slurm_trains_a_sweep(settings):
    stacks = stacks_of(2, 1, 1)
    submitted = submit(settings, launcher("slurm", jobs=2), stacks)
    again = submit(settings, launcher("slurm", jobs=2), stacks)
    assert [job.id for job in again] == [job.id for job in submitted]
    assert watch(Store(settings.results), again, lambda *_: None) == {}
    assert Store(settings.results).finished() == sorted(ids(stacks))


@needs_slurm
@pytest.mark.slow
@pytest.mark.usefixtures("importable")
def test_a_job_of_slurms_that_runs_out_of_time_goes_on_where_it_was(settings):
    stacks = stacks_of(1, steps=6000)
    settings = Settings(results_dir="results", checkpoint_seconds=0.5)
    (job,) = submit(settings, launcher("slurm"), stacks)
    signals = iter([["scancel", "--signal=USR2", job.id]])

    def signal_once_it_trains(*_) -> None:
        if Store(settings.results).run(job.run_ids[0]).checkpoint.exists():
            subprocess.run(next(signals, ["true"]), check=True)

    assert watch(Store(settings.results), [job], signal_once_it_trains) == {}
    log = job.log.with_suffix(".out").read_text() + job.log.read_text()
    assert log.count("Requeued job") == 1
    assert "going on from step" in log
