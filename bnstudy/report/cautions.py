"""What limits the results of a study, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from bnstudy.claims.counterevidence import describe_smallest_p, list_some
from bnstudy.claims.frames import EVERYTHING, StudyData, describe_damages, of_earlier_version
from bnstudy.report.summary import percent
from bnstudy.store.outcomes import FORMER_REASON
from bnstudy.store.thin import BITS, LOSSES

THIN = (
    f"The store is thin: it has the training loss at {LOSSES} steps, within {2**-BITS:.1%}, and its exact mean over "
    "all. Other losses are those at the end only. Claims have the same values as in the full store, or say that they "
    "need every loss; curves of the training loss are rougher."
)

VERDICT_SEEDS = 10
"""Of each arm, which verdicts need."""


def cautions(study: StudyData) -> list[str]:
    """What limits the results: versions of a dataset, few seeds, missing runs, seeds added after looking at results,
    the classes of the data, what probes could not see, runs that may have been stopped in error."""
    found = [*study.mixed_images]
    found += _few_seeds(study)
    if study.n_missing:
        failed = f" ({len(study.failures)} failed)" if study.failures else ""
        count = f"{study.n_missing} of {len(study.planned)} planned runs"
        found.append(f"{count} {'is' if study.n_missing == 1 else 'are'} missing{failed}: all results may change.")
    found += describe_damages(study.damages)
    if study.is_thin:
        found.append(THIN)
    if study.looks == "repeated":
        found.append(
            "The number of seeds was not fixed in advance: seeds are added until the claims are decided. Intervals and "
            "tests of the verdicts are valid for any number of looks, all others for a single look."
        )
    found += [*_unbalanced(study.runs), *_not_seen(study.runs)]
    return [*found, *_stopped_by_former_bound(study), *_computed_otherwise(study.runs)]


def _few_seeds(study: StudyData) -> Iterator[str]:
    """Where an arm has too few seeds for the study's verdicts, or for the intervals of a study without claims."""
    fewest = int(study.runs.groupby("arm", observed=True)["seed"].nunique().min())
    if fewest >= VERDICT_SEEDS:
        return
    count = "1 seed" if fewest == 1 else f"{fewest} seeds"
    if study.name != EVERYTHING and not study.claims:
        yield f"Few seeds: some arm has only {count}; intervals over seeds are {'missing' if fewest == 1 else 'wide'}."
        return
    few = f"Too few seeds for a verdict: some arm has only {count}; at least {VERDICT_SEEDS} are needed."
    yield f"{few} {describe_smallest_p(fewest)}" if fewest > 1 else few


def _not_seen(runs: pd.DataFrame) -> Iterator[str]:
    """What probes could not see in the networks of each panel; runs of earlier versions did not record it."""
    for panel, own in runs.groupby("panel", observed=True) if "probes_cannot_see" in runs else ():
        for sentence in dict.fromkeys(s for of_run in own["probes_cannot_see"].dropna() for s in of_run):
            yield f"What probes see of {panel}: {sentence}"


def _unbalanced(runs: pd.DataFrame) -> Iterator[str]:
    """A sentence for each dataset whose runs recorded their balanced accuracy."""
    for name, own in runs[runs["balanced_accuracy"].notna()].groupby("dataset.name"):
        share = percent(own["chance"].max())
        yield (
            f"The classes of {name} differ in size: guessing the most frequent one is right for {share} of its test "
            "images. Runs that diverged or did not learn count with this accuracy. Learning rates are chosen by the "
            "balanced accuracy, the mean over the classes, which the tables of arms also have."
        )


def _computed_otherwise(runs: pd.DataFrame) -> Iterator[str]:
    """Runs of earlier versions that this version would give other numbers."""
    former = of_earlier_version(runs)
    own = former & ~runs["data._target_"].astype(str).str.fullmatch(r"bnstudy\.data\.(?!image_folder\.).*")
    if n := int((own & ~runs["dataset.checksum"].isin(runs.loc[~former, "dataset.checksum"])).sum()):
        yield (
            f"{n} {'run' if n == 1 else 'runs'} of an earlier version {'takes' if n == 1 else 'take'} 1 / classes for "
            "the accuracy of guessing. It is higher if the classes differ in size."
        )
    half = former & (runs["precision"] == "bf16") & (runs.get("loss", "CrossEntropy") != "CrossEntropy")
    if n := int(half.sum()):
        yield (
            f"{n} {'run' if n == 1 else 'runs'} of an earlier version with precision=bf16 computed the loss in bf16. "
            "Runs of this version compute it in float32: do not compare them."
        )


def _stopped_by_former_bound(study: StudyData) -> Iterator[str]:
    """Runs that an earlier version stopped at a single large loss."""
    stopped = study.runs.loc[study.runs["diverged_because"] == FORMER_REASON, "run_id"]
    if n := len(stopped):
        again = f", then type: {study.commands[-1]}" if study.commands else " and train them again"
        yield (
            f"An earlier version stopped {n} {'run' if n == 1 else 'runs'} at the first training loss above 10 times "
            f"the initial one: {'it' if n == 1 else 'some'} may have recovered. To train them as this version does, "
            f"delete their folders in runs/ of the store ({list_some(list(stopped))}){again}"
        )
