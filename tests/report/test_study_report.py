from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from bnstudy.claims.frames import load_study
from bnstudy.claims.verdicts import verdicts
from bnstudy.report.report import write_report
from bnstudy.report.result import ReportResult
from bnstudy.store.runs import Store
from bnstudy.validation import ConfigError
from tests import synthetic
from tests.report.pages import files
from tests.synthetic import Run

pytestmark = pytest.mark.usefixtures("blank_figures")
WRITE = """
import sys
from pathlib import Path
from bnstudy.report.report import write_report
write_report(Path(sys.argv[1]), "lr_tolerance")
assert "torch" not in sys.modules, "torch was imported"
assert "matplotlib.pyplot" not in sys.modules, "pyplot was imported"
"""
KINDS = ("curves", "dead-map", "dead-units", "gradients", "learning-rates")


def test_the_same_store_gives_the_same_bytes_without_torch(result: ReportResult, sweep_dir: Path) -> None:
    first = files(result.folder)
    env = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-W", "error", "-c", WRITE, str(sweep_dir)], check=True, env=env)
    assert files(result.folder) == first


def test_a_report_has_a_page_tables_and_figures(result: ReportResult, sweep_dir: Path) -> None:
    assert result.folder == sweep_dir / "reports" / "lr_tolerance"
    figures = [f"figures/{kind}-mlp-on-digits" for kind in KINDS] + ["figures/effect-higher-learning-rates"]
    expected = {
        "index.html",
        "report.md",
        "runs.csv",
        "claims.json",
        "verdicts.csv",
        "figures/files.json",
        *(f + end for f in figures for end in (".svg", ".png")),
    }
    assert set(files(result.folder)) == expected
    assert (result.diverged, result.missing) == (12, 1)


def test_claims_json_has_the_numbers_of_a_verdict(result: ReportResult) -> None:
    (verdict,) = json.loads((result.folder / "claims.json").read_text())
    named = {"claim", "statement", "model", "data", "status", "effect", "ci_low", "ci_high", "unit", "threshold"}
    named |= {"n_seeds", "run_ids", "view", "p", "p_holm", "d_z", "more_seeds", "because"}
    assert named <= set(verdict)
    assert (verdict["claim"], verdict["model"], verdict["data"]) == ("higher_learning_rates", "MLP", "Digits")
    assert len(verdict["run_ids"]) == 42  # of 47: not those at rate 1, which lacks a seed


def test_the_table_of_runs_has_every_run(result: ReportResult) -> None:
    table = pd.read_csv(result.folder / "runs.csv")
    assert table["run_id"].is_monotonic_increasing
    assert len(table) == 47
    assert list(table.columns[1:]) == sorted(table.columns[1:])


def test_all_cautions_are_shown(result: ReportResult, text: str) -> None:
    assert len(result.cautions) == 2
    assert all(sentence in text for sentence in result.cautions)


def test_missing_runs_are_listed_with_the_command_that_completes_them(text: str) -> None:
    assert "Missing: 1 of 48 runs" in text
    assert "BatchNorm, lr=1: 2 of 3 seeds" in text
    assert "bnstudy study=lr_tolerance scale=quick" in text
    assert "NoNorm, lr=1: 3 of 3 diverged, the first at step" in text


@pytest.mark.parametrize("name", ["../../home", "/tmp/home", "x/../../../home"])
def test_the_name_of_a_report_is_that_of_the_studys_folder(tmp_path: Path, name: str) -> None:
    store = tmp_path / "a" / "store"
    synthetic.plan(store, "s", synthetic.write(store, [Run(total=20)]))
    [plan] = (store / "studies/s/quick").glob("*.json")
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"name": name, "scale": name}))
    assert write_report(store, "s").folder == store / "reports" / "s"
    assert write_report(store, "all").folder == store / "reports" / "all-studies"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_runs_picked_by_hand_have_a_report_of_their_own(tmp_path: Path) -> None:
    first, second, _ = synthetic.write(
        tmp_path, [Run(total=20), Run("BatchNorm", total=20), Run("LayerNorm", total=20)]
    )
    result = write_report(tmp_path, picked=[second, first, first])
    assert result.folder.name == f"runs-{'-'.join(sorted([first, second]))}"
    assert set(pd.read_csv(result.folder / "runs.csv")["run_id"]) == {first, second}
    text = (result.folder / "report.md").read_text()
    assert "Runs picked by hand" in text
    assert "LayerNorm" not in text


def test_many_picked_runs_have_a_short_name(tmp_path: Path) -> None:
    ids = synthetic.write(tmp_path, [Run(seed=seed, total=20) for seed in range(6)])
    names = {load_study(tmp_path, picked=picked).name for picked in (ids, ids[::-1], ids[1:])}
    assert len(names) == 2
    assert all(re.fullmatch(r"runs-[0-9a-f]{12}-and-\d-more-[0-9a-f]{8}", name) for name in names)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"picked": ["{near}"]}, "runs={near}: there is no such run in .*; did you mean {run_id}?"),
        ({"picked": ["{run_id}", "zzz"]}, r"runs=zzz: there is no such run in [^;]*\."),
        ({"picked": ["{run_id}"], "study": "s"}, "not allowed together with a study"),
    ],
)
def test_wrong_picks_are_refused_in_a_sentence(tmp_path: Path, options: dict, sentence: str) -> None:
    (run_id,) = synthetic.write(tmp_path, [Run(total=20)])
    names = {"run_id": run_id, "near": run_id[:-1] + "-"}
    options = {**options, "picked": [text.format(**names) for text in options["picked"]]}
    with pytest.raises(ConfigError, match=sentence.format(**names).replace("?", r"\?")):
        write_report(tmp_path, **options)


def test_a_picked_run_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    (run_id,) = synthetic.write(tmp_path, [Run(total=20)])
    Store(tmp_path).run(run_id).summary.unlink()
    with pytest.raises(ConfigError, match="None of the 1 runs picked is finished yet"):
        write_report(tmp_path, picked=[run_id])


def fixed_rate_runs(seeds: int = 12) -> list[Run]:
    """One network with and without batch normalization at one learning rate."""
    accuracy = {"NoNorm": 0.9, "BatchNorm": 0.95}
    arms = itertools.product(accuracy, range(seeds))
    return [Run(n, 0.5, seed, total=60, accuracy=accuracy[n] + 0.002 * (seed % 3)) for n, seed in arms]


def test_runs_without_a_study_get_verdicts_at_their_fixed_learning_rate(tmp_path: Path) -> None:
    synthetic.write(tmp_path, fixed_rate_runs())
    result = write_report(tmp_path)
    found = {v["claim"]: v for v in json.loads((result.folder / "claims.json").read_text())}
    assert (found["regularizes"]["view"], found["regularizes"]["status"]) == ("fixed_rate", "SUPPORTED")
    assert not {"higher_learning_rates", "alternatives", "rescues_sigmoids", "residual_alternatives"} & {*found}
    (sentence,) = [s for s in result.verdicts if s.startswith("SUPPORTED: Within the same number of steps, batch")]
    assert (
        "MLP on Digits, at a fixed learning rate, 0.5: 5.0 percentage points higher test accuracy (5.0 to 5.0)"
        in sentence
    )
    assert "at a fixed learning rate" in (result.folder / "index.html").read_text()


def test_a_study_at_one_learning_rate_gets_verdicts_at_it(tmp_path: Path) -> None:
    ids = synthetic.write(tmp_path, fixed_rate_runs())
    synthetic.plan(tmp_path, "s", ids, claims=["regularizes", "higher_learning_rates"])
    found = verdicts(load_study(tmp_path, "s"))
    assert {v.contrast.claim.name: (v.contrast.view, v.status) for v in found} == {
        "regularizes": ("fixed_rate", "SUPPORTED"),
        "higher_learning_rates": ("all_rates", "INCONCLUSIVE"),
    }


def test_runs_picked_by_hand_get_no_verdicts(tmp_path: Path) -> None:
    ids = synthetic.write(tmp_path, fixed_rate_runs())
    assert write_report(tmp_path, picked=ids).verdicts == ()


def test_a_report_says_that_its_study_was_extended_after_an_earlier_report(tmp_path: Path) -> None:
    runs = fixed_rate_runs()
    synthetic.plan(tmp_path, "s", synthetic.write(tmp_path, runs[:10] + runs[12:22]), claims=["regularizes"])
    first, again = (files(write_report(tmp_path, "s").folder) for _ in range(2))
    assert first == again
    synthetic.plan(tmp_path, "s", synthetic.write(tmp_path, runs), claims=["regularizes"])
    caution = "This study was extended after a report on seeds 0 to 9 was drawn (now seeds 0 to 11)"
    result, of_all = write_report(tmp_path, "s"), write_report(tmp_path, "all")
    assert [text[: len(caution)] for text in result.cautions] == [caution]
    assert [text[: len(caution) + 3] for text in of_all.cautions] == [f"s: {caution}"]
    assert caution in (result.folder / "report.md").read_text().replace("\\", "")


def test_a_report_says_once_what_probes_could_not_see(tmp_path: Path) -> None:
    ids = synthetic.write(tmp_path, fixed_rate_runs())
    synthetic.plan(tmp_path, "s", ids, claims=["regularizes"])
    assert not any("probes see" in caution for caution in write_report(tmp_path, "s").cautions)
    for run_id in ids[::2]:
        synthetic.edit_summary(tmp_path, run_id, probes_cannot_see=["gru computes its activations inside."])
    for run_id in ids[1::2]:
        synthetic.edit_summary(tmp_path, run_id, probes_cannot_see=[])
    result = write_report(tmp_path, "s")
    [sentence] = [caution for caution in result.cautions if "probes see" in caution]
    assert sentence.endswith(": gru computes its activations inside.")
    assert sentence in (result.folder / "index.html").read_text()
