"""The command as a person types it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

import bnstudy
from bnstudy import cli
from bnstudy.claims.frames import load_study
from bnstudy.claims.metrics import accuracy_above_chance
from bnstudy.store.files import conf_dir
from bnstudy.store.plans import Plans
from bnstudy.store.runs import Store
from bnstudy.train.loop import Training
from bnstudy.validation import ConfigError
from tests.documents import write_files

SHORT = ("steps=10", "model.width=16")
ENTRY = [sys.executable, "-c", "from bnstudy.cli import main; main()"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}


def test_one_run_is_trained_and_stored(command, tmp_path):
    status, out, _ = command("norm=batch", "lr=0.1", *SHORT)
    (run_id,) = Store(Path("results")).finished()
    assert status == 0
    assert run_id in out
    assert "finished" in out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["results"]
    files = ["config.yaml", "metrics.parquet", "summary.json", "timing.parquet"]
    assert sorted(p.name for p in Path("results/runs", run_id).iterdir()) == files


def test_a_repeated_sweep_trains_nothing(command):
    sweep = ("-m", "norm=none,batch", "lr=0.1,1", "seed=range(0,2)", *SHORT)
    status, out, err = command(*sweep)
    assert status == 0
    assert "8 runs: 0 finished, 8 to do" in err
    assert len(out.strip().splitlines()) == 1 + 8
    runs = bnstudy.load_runs("results")
    assert len(runs) == 8
    written = {p: p.stat().st_mtime_ns for p in Path("results/runs").glob("*/*")}
    status, again, err = command(*sweep)
    assert status == 0
    assert [row.split()[:5] for row in again.splitlines()] == [row.split()[:5] for row in out.splitlines()]
    assert "8 runs: 8 finished, 0 to do" in err
    assert {p: p.stat().st_mtime_ns for p in Path("results/runs").glob("*/*")} == written


def test_the_same_command_elsewhere_writes_the_same_bytes(command):
    contents = []
    for folder in ("a", "b"):
        command("norm=batch", f"results_dir={folder}", "data.augment=crop_flip", *SHORT)
        contents.append(
            {p.name: p.read_bytes() for p in Path(folder).glob("runs/*/*") if p.stem in ("config", "metrics")}
        )
    assert len(contents[0]) == 2
    assert contents[0] == contents[1]


def test_a_study_stores_its_runs_and_command(command):
    status, _, _ = command("study=quickstart", "lr=0.1", "seed=0,1", "model.width=16", "steps=10")
    plans = Plans(Path("results"))
    (plan,) = plans.load(plans.find("quickstart"))
    assert status == 0
    assert plan["run_ids"] == Store(Path("results")).finished()
    assert len(plan["run_ids"]) == 4
    assert plan["commands"] == ["bnstudy study=quickstart lr=0.1 seed=0,1 model.width=16 steps=10"]


def test_progress_false_prints_nothing(command):
    assert command("progress=false", *SHORT) == (0, "", "")


def test_flags_may_stand_anywhere(command):
    status, out, _ = command("norm=none,batch", "-m", *SHORT)
    assert status == 0
    assert out.count("finished") == 2
    assert "model:" in command("lr=0.2", "--cfg", "job")[1]


def test_version_is_that_of_bnstudy(command):
    assert command("--version")[:2] == (0, f"bnstudy {bnstudy.__version__}\n")


def test_without_words_it_says_how_to_begin_and_trains_nothing(command):
    status, out, err = command()
    assert (status, err) == (0, "")
    for line in ("bnstudy study=quickstart", "bnstudy-report study=quickstart --open", "bnstudy list"):
        assert f"  {line} " in out
    assert not Path("results").exists()


def test_the_package_can_be_run_as_a_module():
    words = [sys.executable, "-m", "bnstudy", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stdout == f"bnstudy {bnstudy.__version__}\n"


@pytest.mark.parametrize(("word", "near"), [("lst", "list"), ("stauts", "status"), ("difff", "diff")])
def test_a_mistyped_subcommand_is_recognized(command, word, near):
    status, out, err = command(word)
    assert (status, out) == (2, "")
    assert err == f"bnstudy: {word} is not a subcommand; did you mean {near}? Settings are written key=value.\n"


def test_a_sweep_says_at_once_that_it_plans_and_at_the_end_what_to_type(tmp_path):
    words = [*ENTRY, "-m", "seed=0,1", "norm=none", *SHORT, "results_dir=my store"]
    done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path, check=True)
    first, plan, *_, last = done.stderr.splitlines()
    assert first == "Planning ..."
    assert plan.startswith("2 runs: 0 finished, 2 to do")
    assert last == "Next: bnstudy-report 'results_dir=my store' --open"
    assert len(done.stdout.splitlines()) == 3


def test_a_network_that_cannot_take_the_images_is_refused_before_training(command, tmp_path):
    """Four halvings make 16x16 images single pixels, over which InstanceNorm has no statistics."""
    for path in (tmp_path / "tiny" / part / label for part in ("train", "test") for label in "ab"):
        path.mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (16, 16), (i, i, i)).save(path / f"{i}.png")
    arguments = ("data=image_folder", "data.root=tiny", "model=vgg", "model.depth=11", "norm=instance", "batch_size=4")
    status, _, err = command(*arguments, "steps=3")
    assert status == 2
    assert "norm=InstanceNorm is not allowed with this network: in conv7 it has a single value to normalize" in err


@pytest.mark.parametrize("engine", ["auto", "serial", "stacked"])
def test_a_failing_run_does_not_stop_the_others(command, monkeypatch, engine):
    from bnstudy.train import serial, stacked
    from bnstudy.train.build import build_model

    def build(spec, dataset):
        if spec.seed == 1:
            raise MemoryError("no room")
        return build_model(spec, dataset)

    for module in (serial, stacked):
        monkeypatch.setattr(module, "build_model", build)
    status, out, err = command("-m", "seed=range(0,3)", f"engine={engine}", *SHORT)
    assert status == 1
    assert out.count("finished") == 2
    assert "1 of 3 runs failed; the others are stored:\n  seed=1: MemoryError: no room" in err
    (error,) = Path("results/runs").glob("*/error.txt")
    assert "no room" in error.read_text()


def test_the_same_command_retries_a_failed_run(command, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(Training, "train", lambda *_: 1 / 0)
        assert command(*SHORT)[0] == 1
    assert command(*SHORT)[0] == 0
    assert not list(Path("results/runs").glob("*/error.txt"))


def test_a_diverged_run_is_a_result(command):
    status, out, _ = command("norm=none", "lr=1000", *SHORT)
    assert status == 0
    assert "diverged" in out


def write_noise(folder: Path, **sizes: int) -> None:
    """An image folder of 8x8 noise with classes of these sizes in both splits."""
    rng = np.random.default_rng(0)
    for split, (name, size) in itertools.product(("train", "test"), sizes.items()):
        (folder / split / name).mkdir(parents=True)
        for i in range(size):
            Image.fromarray(rng.integers(256, size=(8, 8), dtype=np.uint8)).save(folder / split / name / f"{i}.png")


@pytest.mark.usefixtures("blank_figures")
def test_noise_with_unequal_classes_is_not_learned_better_than_by_guessing(command):
    write_noise(Path("noise"), a=240, b=60)
    data = ("data=image_folder", "data.root=noise", "data.channels=1", "batch_size=16", "data.val_fraction=0.3")
    sweep = ("norm=batch", "trained=norm", "lr=0.01,0.1,1", "seed=0,1", "steps=40", "model.width=16")
    status, out, _ = command("-m", *data, *sweep)
    assert status == 0
    assert "did not learn" in out
    study = load_study(Path("results"))
    assert (study.runs["chance"] == 0.8).all()
    assert accuracy_above_chance(study.runs, study.metrics)["value"].abs().max() < 3
    status, out, _ = command(entry=cli.report)
    assert status == 0
    assert "guessing the most frequent one is right for 80.0% of its test images" in out
    table = Path("results/reports/all/report.md").read_text()
    assert "| Balanced accuracy |" in table
    assert "50.0%" in table


def test_a_bad_checkpoint_is_set_aside_and_reported(command):
    command(*SHORT, "results_dir=whole")
    (run_id,) = Store(Path("whole")).finished()
    folder = Path("results/runs", run_id)
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes(b"not a checkpoint")
    status, _, err = command(*SHORT)
    assert status == 0
    assert "cannot be used" in err
    assert (folder / "checkpoint.bad.pt").read_bytes() == b"not a checkpoint"
    assert (folder / "metrics.parquet").read_bytes() == Path("whole/runs", run_id, "metrics.parquet").read_bytes()


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import bnstudy", {"torch", "pandas", "hydra"}),
        ("from bnstudy.cli import main; main()", {"torch", "pandas", "submitit"}),
        ("from bnstudy.cli import report; report()", {"torch", "pandas", "hydra"}),
    ],
)
def test_help_imports_nothing_heavy(code, heavy):
    checked = f"import sys\ntry:\n {code}\nexcept SystemExit: pass\nassert not {heavy} & set(sys.modules)"
    command = [sys.executable, "-c", checked, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert "results_dir" in done.stdout or code == "import bnstudy"


def test_every_public_name_can_be_imported():
    assert all(getattr(bnstudy, name) is not None for name in bnstudy.__all__)


def test_a_second_mistake_in_one_process_is_a_sentence_too(command):
    assert [command(word, *SHORT)[0] for word in ("lr=0", "lrr=1", "norm=bach", "lr=[", "lr=0")] == [2] * 5
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_a_notebook_that_uses_hydra_keeps_its_configs(command):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        assert command("lr=0", *SHORT)[0] == 2
        assert command("norm=none", *SHORT, "dry_run=true")[0] == 0
        assert compose("config", ["lr=3"]).lr == 3


@pytest.mark.parametrize("name", ["a=b, Müller", "~"])
def test_results_are_in_the_folder_as_typed(command, name, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert command(f"results_dir={name}/runs", *SHORT)[0] == 0
    assert len(Store(Path(f"{name}/runs").expanduser()).finished()) == 1


def test_a_key_of_a_swept_group_is_for_the_options_that_have_it(command):
    status, _, err = command("-m", "norm=none,group", "norm.groups=4", "seed=0,1", *SHORT)
    assert status == 0
    assert err.splitlines()[0] == "norm.groups does not apply to norm=none, which has no such key."
    runs = bnstudy.load_runs("results")
    assert sorted(runs["norm.groups"].dropna()) == [4, 4]
    assert len(runs) == 4


@pytest.mark.usefixtures("command")
def test_own_modules_train_in_other_processes_and_nothing_else_is_imported_from_the_folder(tmp_path):
    """torch imports tabulate if there is one, and torchvision accimage."""
    for name in ("tabulate", "gmpy2", "accimage"):
        (tmp_path / f"{name}.py").write_text(f"open('ran-{name}', 'w').close()\nraise ImportError\n")
    (tmp_path / "mine.py").write_text("from bnstudy.norms.group import LayerNorm as Mine\n")
    folder = tmp_path / "my_conf" / "norm"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        (conf_dir() / "norm" / "layer.yaml").read_text().replace("bnstudy.norms.group.LayerNorm", "mine.Mine")
    )
    workers = ("hydra.launcher.executor=processes", "hydra.launcher.workers=2")
    words = ("--config-dir", "my_conf", "-m", "norm=mine,batch", "seed=0,1", *workers, *SHORT)
    done = subprocess.run([sys.executable, "-Pc", ENTRY[2], *words], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(Store(Path("results")).finished()) == 4
    assert not list(tmp_path.glob("ran-*"))


def test_a_user_who_debugs_hydra_sees_the_traceback(command, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ConfigError):
        command("lr=0", *SHORT)
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


@pytest.mark.usefixtures("blank_figures")
def test_a_report_finds_claims_outside_the_repository_only_where_it_is_pointed_to(command, tmp_path):
    write_files(tmp_path)
    own = ("study=activation", "study.claims=[higher_accuracy]")
    status, _, err = command("--config-dir", "my_conf", *own, "lr=0.1", "seed=0", *SHORT)
    assert status == 0, err
    plans = Plans(Path("results"))
    variant = plans.find("activation")
    assert len(plans.load(variant)[0]["run_ids"]) == 4
    status, _, err = command("study=activation", entry=cli.report)
    assert status == 2
    assert "claim higher_accuracy is unknown: there is no higher_accuracy.yaml" in err
    for where in ("claims=my_conf/claim", "--config-dir=my_conf"):
        status, _, err = command("study=activation", where, entry=cli.report)
        assert status == 0, err
        verdicts = json.loads(Path("results/reports", variant, "claims.json").read_text())
        cases = [("activation=relu", "fixed_rate"), ("activation=tanh", "fixed_rate")]
        assert [(v["setting"], v["view"]) for v in verdicts] == cases
        assert {v["claim"] for v in verdicts} == {"higher_accuracy"}


@pytest.mark.usefixtures("blank_figures")
def test_the_report_command_prints_where_the_report_on_all_or_some_runs_is(command):
    command("-m", "norm=none,batch,layer", *SHORT)
    first, _, third = Store(Path("results")).finished()
    for words, folder in ([], "all"), ([f"runs={third},{first}"], f"runs-{first}-{third}"):
        status, out, err = command(*words, entry=cli.report)
        assert (status, err) == (0, "")
        assert f"results/reports/{folder}/index.html" in out
        assert Path("results/reports", folder, "index.html").exists()
    status, _, err = command(f"runs=[{first[:-1]}]", entry=cli.report)
    assert (status, f"runs={first[:-1]}: there is no such run in results; did you mean {first}?" in err) == (2, True)
    status, _, err = command("study=quickstart", entry=cli.report)
    assert (status, "quickstart" in err) == (2, True)
