"""How often there is a verdict on trained networks that do not differ: one arm against itself, with other seeds.

    bnstudy study=quickstart 'seed=range(0,96)' results_dir=DIR
    python scripts/aa_check.py DIR [--studies 1000]

Each study takes 32 random seeds and labels one half A and the other B. Everything is as in a report: learning rates
chosen by the first seeds of each half, all views, Holm's correction over the study's verdicts. The check is done twice,
with each claim's smallest effect of interest and with almost none (every effect counts), the worst case.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from bnstudy.claims import arms
from bnstudy.claims.claim import Claim, load_claims
from bnstudy.claims.contrasts import contrasts
from bnstudy.claims.frames import StudyData, load_study
from bnstudy.claims.verdicts import judge_all

SEEDS = 16
"""Of each half."""


def halves(study: StudyData, norm: str, rng: np.random.Generator) -> StudyData:
    """Runs of one norm as two norms, A and B, that share the seeds 0, 1, ... and nothing else."""
    chosen = rng.permutation(study.runs["seed"].unique())[: 2 * SEEDS]
    side = {int(seed): ("AB"[i // SEEDS], i % SEEDS) for i, seed in enumerate(chosen)}

    def renamed(frame: pd.DataFrame) -> pd.DataFrame:
        own = frame[(frame["norm"] == norm) & frame["seed"].isin(chosen)].drop(columns=list(arms.LABELS))
        return own.assign(norm=[side[s][0] for s in own["seed"]], seed=[side[s][1] for s in own["seed"]])

    specs, runs = arms.label(renamed(study.specs)), renamed(study.runs)
    runs = runs.merge(specs[["run_id", *arms.LABELS]], on="run_id")
    metrics = study.metrics[study.metrics["run_id"].isin(runs["run_id"])]
    return replace(study, specs=specs, runs=runs, metrics=metrics, planned=tuple(runs["run_id"]))


def compare_halves(claim: Claim, every_effect: bool) -> Claim:
    """The claim on A and B. every_effect: with a smallest effect of interest of almost 0."""
    least = (1 if claim.scale == "log_ratio" else 0) + 1e-12
    return replace(claim, with_={"norm": "A"}, without={"norm": "B"}, delta=least if every_effect else claim.delta)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results_dir", type=Path)
    parser.add_argument("--study", default="quickstart")
    parser.add_argument("--studies", type=int, default=1000)
    options = parser.parse_args()
    trained = load_study(options.results_dir, options.study)
    claims = load_claims(trained.claims)
    rng = np.random.default_rng(0)
    norms = sorted(trained.runs["norm"].unique())
    counts: dict[bool, Counter[tuple[str, str, str]]] = {False: Counter(), True: Counter()}
    wrong = Counter[bool]()
    for i in range(options.studies):
        study = halves(trained, norms[i % len(norms)], rng)
        for every_effect, counted in counts.items():
            both = [compare_halves(claim, every_effect) for claim in claims]
            found = judge_all([contrast for claim in both for contrast in contrasts(study, claim)])
            counted.update((v.contrast.claim.name, v.contrast.view, v.status) for v in found)
            wrong[every_effect] += any(v.status in ("SUPPORTED", "CONTRADICTED") for v in found)
    for every_effect, counted in counts.items():
        print(f"\n{'delta = 0' if every_effect else 'delta of each claim'}, {options.studies} studies\n")
        print("| claim | view | SUPPORTED or CONTRADICTED | NEGLIGIBLE | INCONCLUSIVE |\n|:--|:--|--:|--:|--:|")
        for name, view in dict.fromkeys((name, view) for name, view, _ in counted):
            shares = Counter(
                {status: n / options.studies for (c, v, status), n in counted.items() if (c, v) == (name, view)}
            )
            one = shares["SUPPORTED"] + shares["CONTRADICTED"]
            print(f"| {name} | {view} | {one:.1%} | {shares['NEGLIGIBLE']:.1%} | {shares['INCONCLUSIVE']:.1%} |")
        print(f"\nStudies with such a verdict on anything: {wrong[every_effect] / options.studies:.1%}")


if __name__ == "__main__":
    main()
