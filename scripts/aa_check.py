"""How often there is a verdict on trained networks that do not differ: one norm against itself, with other seeds.

    bnstudy study=quickstart 'seed=range(0,48)' lr=RATES results_dir=DIR
    python scripts/aa_check.py DIR [--studies 300] [--claims NAME ...]

RATES are those of the fine grid, 0.00316,0.00562,0.01,...,3.16, since a second pass would add other rates to each norm.
Each study takes 28 random seeds and labels one half A and the other B. The rest is as in a report: the learning rate of
each seed is chosen by the other seeds of its half, in all views. The check is done twice, with each claim's smallest
effect of interest and with almost none (every effect counts), the worst case.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from bnstudy.claims import arms
from bnstudy.claims.claim import Claim, load_claims
from bnstudy.claims.contrasts import contrasts
from bnstudy.claims.frames import StudyData, load_study
from bnstudy.claims.verdicts import STATUSES, judge

SEEDS = 14
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
    return replace(study, specs=specs, runs=runs, planned=tuple(runs["run_id"]))


def judge_halves(study: StudyData, claims: Sequence[Claim]) -> Iterator[tuple[bool, str, str, str]]:
    """Whether every effect counts, claim, view and status."""
    for claim in claims:
        equal = replace(claim, with_={"norm": "A"}, without={"norm": "B"}, requires={})
        least = replace(equal, delta=(1 if claim.scale == "log_ratio" else 0) + 1e-12)
        for contrast in contrasts(study, equal):
            for any_effect, one in enumerate((equal, least)):
                verdict = judge(replace(contrast, claim=one))
                yield bool(any_effect), claim.name, contrast.view, verdict.status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results_dir", type=Path)
    parser.add_argument("--study", default="quickstart")
    parser.add_argument("--claims", nargs="+", default=[], help="in place of the study's own")
    parser.add_argument("--studies", type=int, default=300)
    options = parser.parse_args()
    trained = load_study(options.results_dir, options.study)
    claims, rng = load_claims(options.claims or trained.claims), np.random.default_rng(0)
    norms = sorted(trained.runs["norm"].unique())
    counts = Counter[tuple[bool, str, str, str]]()
    for i in range(options.studies):
        counts.update(judge_halves(halves(trained, norms[i % len(norms)], rng), claims))
    for any_effect in (False, True):
        print(f"\n{'delta = 0' if any_effect else 'delta of each claim'}, {options.studies} studies\n")
        print(f"| claim | view | {' | '.join(STATUSES)} |\n|:--|:--|{'--:|' * len(STATUSES)}")
        for name, view in dict.fromkeys(key[1:3] for key in counts if key[0] == any_effect):
            shares = [counts[any_effect, name, view, status] / options.studies for status in STATUSES]
            print(f"| {name} | {view} | {' | '.join(f'{share:.1%}' for share in shares)} |")


if __name__ == "__main__":
    main()
