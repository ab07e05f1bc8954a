"""A study's plan and runs as data frames, with the arm of each run."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from bnstudy.claims import arms
from bnstudy.store.checksums import find_versions
from bnstudy.store.files import conf_dir, is_plain_file
from bnstudy.store.loading import (
    describe_images,
    images_of,
    load_metrics,
    load_runs,
    load_specs,
    load_test_correct,
    load_timing,
)
from bnstudy.store.packed import PackedStore, open_store
from bnstudy.store.plans import Plans
from bnstudy.store.runs import SharedStore, Store
from bnstudy.store.thin import MEAN, SUM, of_training
from bnstudy.validation import ConfigError, closest, nearest

EVERYTHING = "all"
"""Name of the report on every run of a store."""

MAX_DAMAGES = 5
"""So many damaged runs are named."""

WARM_UP = 0.05
"""Share of a run's steps that do not count for its time per step."""


class NothingFinished(ConfigError):  # noqa: N818
    """No requested run is finished and intact."""


class RowsByRun:
    """A frame of measurements with fast access to those of a few runs.

    Access is fast where `run_id` is categorical and the rows are sorted by it.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame, self.ends = frame, np.empty(0, int)
        if isinstance(frame["run_id"].dtype, pd.CategoricalDtype):
            codes = frame["run_id"].cat.codes.to_numpy()
            if (codes[1:] >= codes[:-1]).all():
                self.ends = np.bincount(codes, minlength=len(frame["run_id"].cat.categories)).cumsum()

    def of(self, run_ids: pd.Series) -> pd.DataFrame:
        """The same as `frame[frame["run_id"].isin(run_ids)]`."""
        if not len(self.ends):
            return self.frame[self.frame["run_id"].isin(run_ids)]
        found = self.frame["run_id"].cat.categories.get_indexer(pd.unique(run_ids.astype(object)))
        runs = np.sort(found[found >= 0])
        starts = np.concatenate([[0], self.ends])[runs]
        lengths = self.ends[runs] - starts
        return self.frame.take(np.arange(lengths.sum()) + np.repeat(starts - lengths.cumsum() + lengths, lengths))


@dataclass(frozen=True)
class StudyData:
    """The data of a report on a study; frames are sorted by run_id.

    specs: the runs that have begun, as from `arms.label`, one for each arm and seed.
    runs: the finished runs, as from `load_runs`, with the names in `specs` and the columns of `with_outcomes`.
    metrics, timing: of the finished runs, as from the store's loaders.
    planned: ids of all requested runs, without the repeats.
    repeats: runs left out because they record the training of another run.
    failures: run_id -> the last line of its error.
    damages: run_id -> the sentence about a damaged file. Such a finished run counts as missing.
    claims: names of the study's claims.
    test_correct: as from `load_test_correct`, of finished runs.
    looks: repeated if seeds were added depending on results; intervals and tests of verdicts must allow for it.
    mixed_images: a sentence for each dataset of which the runs have several versions; each version has its own label.
    thin_runs: the runs of which the training losses of some steps only are there, as `store/thin.py` describes.
    """

    name: str
    title: str
    scale: str | None
    commands: tuple[str, ...]
    planned: tuple[str, ...]
    repeats: tuple[str, ...]
    specs: pd.DataFrame
    runs: pd.DataFrame
    metrics: pd.DataFrame
    timing: pd.DataFrame
    failures: dict[str, str]
    claims: tuple[str, ...] = ()
    looks: Literal["once", "repeated"] = "once"
    test_correct: Mapping[str, np.ndarray] = field(default_factory=dict)
    damages: Mapping[str, str] = field(default_factory=dict)
    mixed_images: tuple[str, ...] = ()
    thin_runs: frozenset[str] = frozenset()

    @property
    def is_thin(self) -> bool:
        return bool(self.thin_runs)

    @property
    def n_missing(self) -> int:
        return len(self.planned) - len(self.runs)

    @cached_property
    def metrics_of(self) -> RowsByRun:
        return RowsByRun(self.metrics)

    @cached_property
    def settings(self) -> pd.DataFrame:
        """`specs` without the rows that equal an earlier one in everything but the seed."""
        return arms.distinct(self.specs)[0]


def load_study(
    results_dir: Path | Store, study: str | None = None, scale: str | None = None, picked: Collection[str] = ()
) -> StudyData:
    """The study's runs at one scale, by default the one planned last; without a name, the runs with the `picked` ids,
    or every run in the store if there are none.

    Raises:
        NothingFinished: no run of the plan is finished and intact.
        ConfigError: there is no such plan, or different runs have the same label.
    """
    store = results_dir if isinstance(results_dir, Store) else open_store(results_dir)
    plan = _plan_of_picked(store, study, scale, picked) if picked else _plan(store, study, scale)
    if not isinstance(store, SharedStore | PackedStore):
        store = SharedStore(store.results_dir, Counter(plan["run_ids"]))  # the loaders read the same summaries
    damages: dict[str, str] = {}
    runs = load_runs(store, plan["run_ids"], damages)
    metrics = load_metrics(store, runs["run_id"], damages)
    timing = load_timing(store, runs["run_id"], damages)
    test_correct = load_test_correct(store, runs["run_id"], damages)
    begun = load_specs(store, plan["run_ids"], damages)
    if damages:
        runs, metrics, timing = (frame[~frame["run_id"].isin([*damages])] for frame in (runs, metrics, timing))
    if runs.empty:
        raise NothingFinished(_nothing_finished(store, study, plan, picked, damages))
    mixed_images = tuple(describe_images(runs))
    begun = arms.label(_with_versions(begun, runs))
    specs = one_a_training(begun, count_recorded(metrics))
    repeats = set(begun["run_id"]) - set(specs["run_id"])
    if repeats:
        runs, metrics, timing = (frame[~frame["run_id"].isin(repeats)] for frame in (runs, metrics, timing))
    planned = tuple(r for r in plan["run_ids"] if r not in repeats)
    return StudyData(
        name=plan.get("name", EVERYTHING),
        title=str(plan["title"]),
        scale=plan.get("scale"),
        commands=tuple(plan["commands"]),
        planned=planned,
        repeats=tuple(sorted(repeats)),
        specs=specs,
        runs=with_outcomes(_with_labels(runs, specs), timing),
        metrics=metrics,
        timing=timing,
        failures=_failures(store, set(planned) - set(runs["run_id"])),
        claims=tuple(plan.get("claims", ())),
        looks=plan.get("looks", "once"),
        test_correct={run_id: test_correct[run_id] for run_id in runs["run_id"] if run_id in test_correct},
        damages=damages,
        mixed_images=mixed_images,
        thin_runs=frozenset(of_training(metrics, MEAN)["run_id"].astype(str)),
    )


def _with_versions(specs: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """`specs` with the checksum in the name of each dataset of which the finished `runs` have several versions.

    Runs that are not finished have no checksum yet and keep the name.
    """
    versions = find_versions(images_of(runs))
    checksums = {r: checksum for by_checksum in versions for checksum, ids in by_checksum.items() for r in ids}
    return arms.add_checksums(specs, checksums) if checksums else specs


def _with_labels(runs: pd.DataFrame, specs: pd.DataFrame) -> pd.DataFrame:
    names = [c for c in (*arms.CLASSES, *arms.LABELS) if c in specs]
    return runs.drop(columns=names, errors="ignore").merge(specs[["run_id", *names]], on="run_id", validate="1:1")


def count_recorded(metrics: pd.DataFrame) -> pd.Series:
    """By run_id, the number of measurements; of a thin run the number before it was made thin."""
    ends = of_training(metrics, MEAN).set_index("run_id")["step"]
    counts = metrics["run_id"].value_counts()
    if ends.empty:
        return counts
    of_losses = [of_training(metrics, name)["run_id"] for name in ("loss", MEAN, SUM)]
    kept = pd.concat(of_losses).value_counts()
    all_losses = pd.Series(ends.to_numpy() + 1, ends.index.astype(str))
    return counts.set_axis(counts.index.astype(str)).add((all_losses - kept).dropna(), fill_value=0)


def one_a_training(specs: pd.DataFrame, recorded: pd.Series) -> pd.DataFrame:
    """`specs` with one run for each arm and seed, the one with the most measurements.

    Runs that differ only in their measurements are the same training, and are not independent.

    Args:
        recorded: by run_id, the number of measurements of finished runs.

    Raises:
        ConfigError: runs of one arm and seed differ in more than their measurements.
    """
    key = ["arm", "seed"]
    for (arm, seed), runs in specs[specs.duplicated(key, keep=False)].groupby(key, observed=True):
        _check_same_training(runs, f"{arm}, seed={seed}")
    ranked = specs.assign(amount=specs["run_id"].map(recorded).astype(float))
    ranked = ranked.sort_values(["amount", "run_id"], ascending=[False, True])
    return specs.loc[ranked.drop_duplicates(key).index.sort_values()].reset_index(drop=True)


def _check_same_training(runs: pd.DataFrame, name: str) -> None:
    columns = [c for c in runs if c not in ("run_id", *arms.LABELS) and not arms.is_recorded(c)]
    differing = [c for c in columns if runs[c].map(repr).nunique() > 1]
    if differing:
        raise ConfigError(
            f"The runs {', '.join(runs['run_id'])} are all called {name}, but differ in {', '.join(differing)}, which "
            "a report cannot show: delete the folders of all but one, or draw the report of a study that has only one."
        )


def _plan(store: Store, study: object, scale: object) -> dict[str, Any]:
    """The plan of the runs to report on. Hydra passes names that look like numbers as numbers."""
    if study is not None:
        return _plan_of_study(store, str(study), None if scale is None else str(scale))
    if scale is not None:
        raise ConfigError(
            f"scale={scale} is not allowed without a study. To name both: bnstudy-report study=NAME scale={scale}"
        )
    plans = Plans(store.results_dir)
    repeated = any(plan.get("looks") == "repeated" for study in plans.studies() for plan in plans.load(study))
    looks = {"looks": "repeated"} if repeated else {}  # seeds were added to some of the runs because of results
    return {"title": "All runs in the store", "commands": [], "run_ids": store.begun(), **looks}


def _plan_of_picked(store: Store, study: object, scale: object, picked: Collection[str]) -> dict[str, Any]:
    if study is not None or scale is not None:
        raise ConfigError("runs=... is not allowed together with a study or a scale: a report is on one or the other.")
    known = store.begun()
    for run_id in picked:
        if run_id not in known:
            raise ConfigError(
                f"runs={run_id}: there is no such run in {store.results_dir}{nearest(run_id, known) or '.'}"
            )
    ids = sorted({*picked})
    return {"name": name_of_picked(ids), "title": "Runs picked by hand", "commands": [], "run_ids": ids}


def name_of_picked(run_ids: Sequence[str]) -> str:
    """The name of their report: the ids of up to four runs, else the first one and a digest of all."""
    if len(run_ids) <= 4:
        return "-".join(["runs", *run_ids])
    digest = hashlib.sha256(" ".join(run_ids).encode()).hexdigest()[:8]
    return f"runs-{run_ids[0]}-and-{len(run_ids) - 1}-more-{digest}"


def _plan_of_study(store: Store, study: str, scale: str | None) -> dict[str, Any]:
    stored = Plans(store.results_dir)
    plans = stored.load(stored.find(study))
    if not plans:
        known = {*stored.studies(), *(path.stem for path in (conf_dir() / "study").glob("*.yaml"))}
        name = study if study in known else closest(study, known)
        hint = "." if name in (study, None) else f"; did you mean {name}?"
        command = "" if name in stored.studies() else f" To run it: bnstudy study={name}"
        command = command if name else " There is no such study: bnstudy list shows those that there are."
        damaged = "".join(f" {sentence}" for sentence in stored.damaged(study))
        raise ConfigError(f"study={study} has not been run in {store.results_dir}{hint}{command}{damaged}")
    by_scale = {plan["scale"]: plan for plan in reversed(plans)}
    if scale is not None and scale not in by_scale:
        raise ConfigError(
            f"study={study} has not been run at scale={scale} in {store.results_dir}, but at "
            f"{', '.join(sorted(by_scale))}. To run it: bnstudy study={study} scale={scale}"
        )
    return by_scale[scale] if scale is not None else plans[0]


def _nothing_finished(
    store: Store, study: str | None, plan: dict[str, Any], picked: Collection[str], damages: Mapping[str, str]
) -> str:
    where, count = store.results_dir, len(plan["run_ids"])
    if damages:
        return " ".join(["No run can be reported on.", *describe_damages(damages)])
    if picked:
        return f"None of the {count} runs picked is finished yet in {where}."
    if study is None:
        example = "bnstudy -m norm=none,batch steps=300 'seed=range(0,5)'"
        return f"There is no finished run in {where}. To make some: {example}"
    return f"study={study}: none of its {count} runs in {where} is finished. To run them: {plan['commands'][-1]}"


def describe_damages(damages: Mapping[str, str]) -> list[str]:
    """The sentences about damaged runs, at most `MAX_DAMAGES` of them."""
    sentences = [damages[run_id] for run_id in sorted(damages)]
    more = len(sentences) - MAX_DAMAGES
    found = [*sentences[:MAX_DAMAGES], *([f"{more} more runs are damaged."] if more > 0 else [])]
    if not found:
        return []
    one = len(damages) == 1
    folders, runs = ("its folder is", "it") if one else ("their folders are", "them")
    return [*found, f"Until {folders} deleted, bnstudy counts {runs} as finished and does not train {runs} again."]


def _failures(store: Store, unfinished: Iterable[str]) -> dict[str, str]:
    failures = {}
    for run_id in sorted(unfinished):
        path = store.run(run_id).error
        with suppress(OSError):  # a worker that finishes the run now removes it
            if is_plain_file(path):
                text = path.read_text(encoding="utf-8", errors="replace")
                failures[run_id] = text.strip().rpartition("\n")[2]
    return failures


def with_outcomes(runs: pd.DataFrame, timing: pd.DataFrame) -> pd.DataFrame:
    """Add the outcomes of runs. No run is left out.

    `diverged`; `not_learned`: made all steps without divergence and ended near guessing; `counts_as_guessing`, either;
    `chance`, the accuracy of guessing on the test split; final `test_accuracy` and `val_accuracy` and `best_accuracy`,
    the highest on validation, shares in 0..1, missing where there are no classes; `balanced_accuracy`, test, missing
    where the classes are balanced; `score`, by which learning rates are chosen: the validation accuracy, balanced where
    the classes are not, or, without classes, minus the loss; `step_ms`, the median milliseconds per step.
    """
    diverged, not_learned = runs["status"] == "diverged", runs["learned"].eq(False)  # None where it is not known
    guesses = diverged | not_learned
    runs = _with_known_guessing(runs)
    val, test = (runs[f"dataset.guessing.{split}"].astype(float) for split in ("val", "test"))
    measured = {
        "test_accuracy": ("final.test_accuracy", test),
        "val_accuracy": ("final.val_accuracy", val),
        "best_accuracy": ("best.val_accuracy", val),
    }
    outcomes = {k: runs[c].astype(float).mask(guesses | runs[c].isna(), guess) for k, (c, guess) in measured.items()}
    loss = runs["final.val_loss"].astype(float).fillna(np.inf).mask(diverged, np.inf)
    score = outcomes["val_accuracy"].where(val.notna(), -loss)
    missing = pd.Series(np.nan, runs.index)
    val_balanced, balanced = (runs.get(f"final.{s}_balanced_accuracy", missing).astype(float) for s in ("val", "test"))
    is_unbalanced = balanced.notna().groupby(runs["dataset.name"]).transform("any")
    of_guessing = 1 / runs["dataset.classes"].astype(float)
    outcomes["balanced_accuracy"] = balanced.mask(guesses & is_unbalanced, of_guessing)
    # By the plain accuracy a rate at which all runs diverge would win over one at which they learn the small class.
    score = score.mask(is_unbalanced, val_balanced.mask(guesses, of_guessing).fillna(of_guessing))
    lost = {"diverged": diverged, "not_learned": not_learned, "counts_as_guessing": guesses}
    ms = runs["run_id"].map(step_ms(timing))
    return runs.assign(**lost, chance=test, **outcomes, score=score, step_ms=ms)


def _with_known_guessing(runs: pd.DataFrame) -> pd.DataFrame:
    """`runs` with the accuracy of guessing of those on the same images, where an earlier version took 1 / classes."""
    former, checksum = of_earlier_version(runs), runs["dataset.checksum"]
    for column in ("dataset.guessing.val", "dataset.guessing.test"):
        known = runs[~former].groupby("dataset.checksum")[column].first()
        runs = runs.assign(**{column: runs[column].mask(former, checksum.map(known).fillna(runs[column]))})
    return runs


def of_earlier_version(runs: pd.DataFrame) -> pd.Series:
    """Which runs with classes did not record the loss of guessing."""
    return runs["dataset.guessing.loss"].isna() & runs["dataset.classes"].notna()


def step_ms(timing: pd.DataFrame) -> pd.Series:
    """Median milliseconds per step by run_id, after the warm-up."""
    last = timing.groupby("run_id", observed=True)["step"].transform("max")
    warm = timing[timing["step"] > WARM_UP * last]
    return 1000 * warm.groupby("run_id", observed=True)["step_seconds"].median()
