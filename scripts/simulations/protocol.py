"""Verdicts on simulated runs of two equal arms: learning rates, a second pass, and all views."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd

from bnstudy.claims.arms import label
from bnstudy.claims.contrasts import contrasts
from bnstudy.claims.finer_rates import fine_rates
from bnstudy.claims.frames import StudyData
from bnstudy.claims.verdicts import judge

from .verdicts import CLAIMS, FAST, make_claim

RATES = (0.00316, 0.00562, 0.01, 0.0178, 0.0316, 0.0562, 0.1, 0.178, 0.316, 0.562, 1.0, 1.78, 3.16)
"""Every other one is on the coarse grid."""
SEEDS = 14
STEPS = 400
EVALUATED = np.arange(0, STEPS + 1, 20)
SHAPES = {"flat optimum": False, "narrow optimum": True}


@dataclass(frozen=True)
class Runs:
    """Two equal arms at all learning rates: arrays [arms, rates, seeds], and curves [arms, rates, seeds, evaluations].

    lost: diverged. log_time: ln of the steps that training takes.
    """

    lost: np.ndarray
    val: np.ndarray
    test: np.ndarray
    log_time: np.ndarray
    curves: np.ndarray


def simulate_runs(rng: np.random.Generator, seeds: int, narrow: bool) -> Runs:
    """Accuracies of 359 images and curves, around an optimum that is flat, or narrow beside a cliff."""
    shape, best = (2, len(RATES), seeds), 10 ** rng.uniform(-1, -0.5)
    x = np.log10(np.array(RATES) / best)[:, None]
    lost = x > (0.6 if narrow else 1.0) + 0.07 * rng.normal(size=(2, 1, seeds))
    loss = np.where(x > 0, 0.3, 0.05) * x**2 if narrow else 0.01 * x**2
    accuracy = 0.9 - loss + 0.005 * rng.normal(size=seeds) + 0.008 * rng.normal(size=shape)
    val, test = (accuracy + 0.006 * rng.normal(size=shape) for _ in range(2))
    val, test = (np.where(lost, 0.1, np.round(359 * np.clip(a, 0, 1)) / 359) for a in (val, test))
    log_time = np.log(30) + (2 if narrow else 0.5) * (x - 0.2) ** 2 + 0.15 * rng.normal(size=shape)
    log_time = np.where(lost, np.log(STEPS), log_time)
    curves = val[..., None] * (1 - np.exp(-EVALUATED / np.exp(log_time)[..., None]))
    return Runs(lost, val, test, log_time, curves + 0.004 * rng.normal(size=curves.shape))


@cache
def specs_of(seeds: int) -> pd.DataFrame:
    keys = [{"norm": norm, "lr": lr, "seed": seed} for norm in "AB" for lr in RATES for seed in range(seeds)]
    frame = pd.DataFrame(keys).assign(model="MLP", data="Digits")
    return label(frame.assign(run_id=[f"{i:05d}" for i in range(len(frame))]))


def simulate_study(rng: np.random.Generator, seeds: int, narrow: bool) -> StudyData:
    """At all learning rates."""
    runs, specs = simulate_runs(rng, seeds, narrow), specs_of(seeds)
    lost, val = runs.lost.ravel(), runs.val.ravel()
    frame = specs.assign(
        diverged=lost, counts_as_guessing=lost, steps=STEPS, chance=0.1, score=val,
        val_accuracy=val, best_accuracy=val, test_accuracy=runs.test.ravel(),
    )  # fmt: skip
    run_ids = pd.Categorical.from_codes(np.repeat(np.arange(len(frame)), len(EVALUATED)), specs["run_id"])
    metrics = pd.DataFrame({"run_id": run_ids, "step": np.tile(EVALUATED, len(frame)), "value": runs.curves.ravel()})
    metrics = metrics.assign(split="val", metric="accuracy", layer="")
    return StudyData("simulated", "", None, (), (), (), specs, frame, metrics, pd.DataFrame(), {})


def at_rates(study: StudyData, rates: Mapping[str, Collection[float]]) -> StudyData:
    """The runs of each family at these learning rates."""
    kept = np.array([lr in rates[f] for f, lr in zip(study.specs["family"], study.specs["lr"], strict=True)])
    specs = study.specs[kept]
    return replace(study, specs=specs, runs=study.runs[kept], planned=tuple(specs["run_id"]))


def judge_equal_arms(study: StudyData) -> Iterator[tuple[tuple[str, str, bool], str]]:
    """(claim, view, whether every effect counts) and the status, after a second pass of finer learning rates."""
    claims = [make_claim(name) for name in CLAIMS]
    coarse = at_rates(study, dict.fromkeys("AB", RATES[::2]))
    finer = fine_rates(coarse, claims)
    fine = at_rates(study, {norm: (*RATES[::2], *finer.get(("MLP on Digits", norm), ())) for norm in "AB"})
    for claim in claims:
        least = replace(claim, delta=(1 if claim.scale == "log_ratio" else 0) + 1e-12)
        for contrast in contrasts(fine, claim):
            for any_effect, one in enumerate((claim, least)):
                status = judge(replace(contrast, claim=one, method=FAST)).status
                yield (claim.name, contrast.view, bool(any_effect)), status


def table_of_protocol(studies: int, seed: int) -> None:
    print(
        "\n| equal arms | claim | view | SUPPORTED or CONTRADICTED | NEGLIGIBLE | SUPPORTED or CONTRADICTED, delta 0 |"
    )
    print("|:--|:--|:--|--:|--:|--:|")
    for shape, narrow in SHAPES.items():
        rng, counts = np.random.default_rng(seed), Counter[tuple[tuple[str, str, bool], str]]()
        for _ in range(studies):
            counts.update(judge_equal_arms(simulate_study(rng, SEEDS, narrow)))
        for name, view in sorted({key[:2] for key, _ in counts}):
            wrong, wrong_at_0 = (
                sum(counts[(name, view, any_effect), status] for status in ("SUPPORTED", "CONTRADICTED"))
                for any_effect in (False, True)
            )
            shares = (wrong, counts[(name, view, False), "NEGLIGIBLE"], wrong_at_0)
            cells = " | ".join(f"{100 * share / studies:.1f}%" for share in shares)
            print(f"| {shape} | {name} | {view} | {cells} |", flush=True)
