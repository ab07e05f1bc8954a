"""A number that a finding, a table, a figure and a verdict give is one number, recomputed here in plain pandas."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from bnstudy.claims.frames import load_study
from bnstudy.report.compare import compare
from bnstudy.report.figures.titles import percent
from bnstudy.report.report import write_report
from bnstudy.report.result import ReportResult
from bnstudy.stats.corrections import holm
from bnstudy.stats.intervals import paired_difference
from bnstudy.store.loading import load_metrics
from tests.conftest import leave_figures_blank
from tests.sweeps import NODE
from tests.synthetic import FINE_RATES, Run, plan, write

SEEDS, STEPS = 10, 20
BEST = {"NoNorm": 0.1, "BatchNorm": 0.316}
DIVERGED_SEED, FAILED_SEED = 3, 5
CLAIMS: dict[str, dict[str, Any]] = {
    "accuracy": {"metric": "test_accuracy", "views": ["best_rate", "same_rate"]},
    "dead": {"metric": "dead_units", "better": "lower", "delta": 5, "figures": ["dead-units"]},
    "tolerated": {"metric": "largest_tolerated_rate", "delta": 2, "unit": "times", "figures": ["learning-rates"]},
}


def made(norm: str, lr: float, seed: int) -> Run:
    """Seed 3 without normalization diverges at every rate from 0.05, seed 5 fails to learn at the two largest."""
    accuracy = 0.9 - 0.5 * np.log10(lr / BEST[norm]) ** 2 + 0.001 * seed * (1 + (norm == "BatchNorm") / 3)
    run = Run(norm, lr, seed, total=STEPS, accuracy=accuracy, val_accuracy=accuracy - 0.01)
    if norm == "NoNorm" and seed == DIVERGED_SEED and lr > 0.05:
        return replace(run, diverged_at=4)
    return replace(run, diverged_at=STEPS) if norm == "NoNorm" and seed == FAILED_SEED and lr >= 1 else run


@dataclass(frozen=True)
class Made:
    """A report, and what it is about. results: of all studies of the store."""

    folder: Path
    report: ReportResult
    every: ReportResult

    @property
    def text(self) -> str:
        return (self.report.folder / "report.md").read_text().replace("\\", "")

    @property
    def runs(self) -> pd.DataFrame:
        return pd.read_csv(self.report.folder / "runs.csv")

    def verdict(self, claim: str, view: str) -> dict[str, Any]:
        found = json.loads((self.report.folder / "claims.json").read_text())
        return next(v for v in found if (v["claim"], v["view"]) == (claim, view))

    def alt(self, kind: str) -> str:
        return re.search(rf"!\[([^]]*)\]\(figures/{kind}-[^)]*\)", self.text)[1]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("one")
    (folder / "claims").mkdir()
    for name, changes in CLAIMS.items():
        (folder / "claims" / f"{name}.yaml").write_text(yaml.safe_dump({**NODE, **changes}))
    ids = write(folder, [made(norm, lr, s) for norm in BEST for lr in FINE_RATES for s in range(SEEDS)])
    plan(folder, "one", ids, claims=list(CLAIMS))
    plan(folder, "other", ids[:1], claims=["faster_convergence"])
    dirs = [folder / "claims"]
    with pytest.MonkeyPatch.context() as patch:
        leave_figures_blank(patch)
        one, every = (write_report(folder, study, claim_dirs=dirs) for study in ("one", "all"))
    return Made(folder, one, every)


def at_best(runs: pd.DataFrame, norm: str) -> pd.DataFrame:
    """The runs of a norm at the rate with the highest mean validation accuracy, by a naive loop."""
    own = runs[runs["norm"] == norm]
    means = {lr: own.loc[own["lr"] == lr, "val_accuracy"].mean() for lr in own["lr"].unique()}
    return own[own["lr"] == max(means, key=means.get)]


@pytest.mark.parametrize(("norm", "side"), [("NoNorm", "without"), ("BatchNorm", "with")])
def test_the_accuracy_of_a_finding_a_table_a_figure_and_a_verdict_is_one(one: Made, norm: str, side: str) -> None:
    runs = at_best(one.runs, norm)
    accuracy, verdict = f"{100 * runs['test_accuracy'].mean():.1f}%", one.verdict("accuracy", "best_rate")
    assert verdict["seeds_by_lr"][side] == {
        f"{BEST[norm]:g}": SEEDS
    }  # every seed is at the rate that is best on average
    assert f"{verdict[f'mean_{side}']:.1f}%" == accuracy
    assert any(
        f"{norm} at its best learning rate, {BEST[norm]:g}, reaches {accuracy}" in f for f in one.report.findings
    )
    assert f"| {norm}, lr={BEST[norm]:g} ● | {accuracy} |" in one.text
    error = percent(1 - runs["test_accuracy"].median())
    assert f"{norm} has its best mean validation accuracy at {BEST[norm]:g}, with a median test error of {error}" in (
        one.alt("learning-rates")
    )
    validation = percent(runs["val_accuracy"].mean())
    assert f"{norm} (best lr={BEST[norm]:g}) ends at {validation}" in one.alt("curves")


@pytest.mark.parametrize(("norm", "side"), [("NoNorm", "without"), ("BatchNorm", "with")])
def test_the_dead_units_of_a_figure_and_a_verdict_are_one_number(one: Made, norm: str, side: str) -> None:
    runs, metrics = at_best(one.runs, norm), load_metrics(one.folder)
    shares = []
    for run in runs.itertuples():
        rows = metrics[(metrics["run_id"] == run.run_id) & (metrics["metric"] == "dead_share")]
        end = rows[(rows["layer"] == "") & (rows["step"] == STEPS)]["value"]
        shares.append(100.0 if run.status == "diverged" else 100 * end.iloc[0])
    assert one.verdict("dead", "best_rate")[f"mean_{side}"] == pytest.approx(np.mean(shares))
    assert f"{norm} {percent(np.mean(shares) / 100)}" in one.alt("dead-units")


def test_a_tolerated_rate_is_the_last_before_a_cross_and_not_one_that_fails_to_learn(one: Made) -> None:
    largest = {}
    for seed, own in one.runs[one.runs["norm"] == "NoNorm"].groupby("seed"):
        lost = own.loc[own["status"] == "diverged", "lr"]
        largest[seed] = own.loc[own["lr"] < lost.min() if len(lost) else own["lr"] > 0, "lr"].max()
    assert (largest[DIVERGED_SEED], largest[FAILED_SEED]) == (0.0316, 1.78)
    verdict = one.verdict("tolerated", "all_rates")
    assert verdict["mean_without"] == pytest.approx(stats.gmean([*largest.values()]))
    assert (verdict["effect_is"], verdict["interval_is"]) == ("", "95%, widened by a grid step")


def test_diverged_runs_are_counted_alike_everywhere(one: Made) -> None:
    diverged, failed = int((one.runs["status"] == "diverged").sum()), int(one.runs["learned"].eq(False).sum())
    assert (one.report.diverged, diverged, failed) == (7, 7, 2)
    assert f"180 of 180 finished, {diverged} of them diverged, {failed} did not learn" in one.text
    lines = re.findall(r"^- NoNorm, lr=.*: (\d+) of 10 diverged", one.text, re.MULTILINE)
    assert sum(map(int, lines)) == diverged
    table = re.findall(r"^\| \w+Norm, lr=[^|]*\|[^|]*\|[^|]*\|[^|]*\| (\d*) \| (\d*) \|", one.text, re.MULTILINE)
    assert [sum(int(row[i] or 0) for row in table) for i in (0, 1)] == [diverged, failed]


def test_a_paired_difference_has_one_interval_everywhere(one: Made) -> None:
    study = load_study(one.folder, "one")
    with_, without = (at_best(study.runs, norm) for norm in ("BatchNorm", "NoNorm"))
    row = compare(with_, without, study.metrics)[0]
    a, b = (100 * runs.set_index("seed")["test_accuracy"] for runs in (with_, without))
    estimate, verdict = paired_difference(a, b), one.verdict("accuracy", "best_rate")
    possible = min(estimate.high, 100.0)  # as few seeds decide, the bootstrap's end is far beyond
    assert (row.effect, row.low, row.high) == pytest.approx((estimate.mean, estimate.low, possible))
    assert [verdict[k] for k in ("effect", "ci_low", "ci_high")] == pytest.approx([row.effect, row.low, row.high])


def test_a_verdict_does_not_depend_on_the_report_but_its_correction_does(one: Made) -> None:
    alone, every = (json.loads((r.folder / "claims.json").read_text()) for r in (one.report, one.every))
    assert len(every) > len(alone)
    ours = [{**v, "p_holm": 0, "survives_holm": 0} for v in every if v["study"] == "one"]
    assert ours == [{**v, "p_holm": 0, "survives_holm": 0} for v in alone]
    tests = {(v["claim"], str(v["seeds_by_lr"])): v for v in every if v["n_seeds"] >= SEEDS}
    assert [v["p_holm"] for v in tests.values()] == pytest.approx(holm([v["p"] for v in tests.values()]))
