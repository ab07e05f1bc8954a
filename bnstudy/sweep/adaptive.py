"""Seeds until it is decided: train a study's, judge its claims, and add seeds for as long as more could settle one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bnstudy.claims.claim import load_claims
from bnstudy.claims.frames import load_study
from bnstudy.claims.verdicts import CAPPED, Verdict, is_too_coarse, verdicts
from bnstudy.report import commands
from bnstudy.report.verdict_rows import rows_of
from bnstudy.store.files import conf_dir
from bnstudy.sweep.command import run
from bnstudy.sweep.progress import RunResult, plural
from bnstudy.sweep.request import Request
from bnstudy.sweep.settings import Settings, StudySpec
from bnstudy.validation import ConfigError

WithSeeds = Callable[[range], Request]
"""What the command asks for, were its seeds these."""


def decide(first: Request, with_seeds: WithSeeds, folders: Sequence[Path] = ()) -> list[RunResult]:
    """Train and judge look after look; where the runs of a look are there it is judged alone, so that the same command
    again takes the same way.

    first: what the command asks for with the study's own seeds. folders: with claims of the user's own.

    Raises:
        ConfigError: seeds cannot be added to this study, or as `sweep.run`.
        RunsFailed, Interrupted, Left: as `sweep.run`.
    """
    settings, study = first.settings, first.study
    if study is None:
        raise ConfigError("until=decided is not allowed without a study.")
    own = own_seeds(first)
    load_claims(study.claims, [*folders, conf_dir() / "claim"])
    results: list[RunResult] = []
    for number, seeds in enumerate(looks(own, settings), 1):
        results = run(first if number == 1 else with_seeds(seeds))
        if settings.dry_run:
            print(announced(seeds, settings))
            break
        found = judged(settings, study, results, folders)
        hopeful = [verdict for verdict in found if may_settle(verdict, len(seeds))]
        lines = told(number, seeds, found, hopeful, settings)
        if settings.progress:
            print("\n".join(lines), flush=True)
        if not hopeful:
            break
    if settings.progress and not settings.dry_run:
        print(f"For the report: {report_command(study, settings, folders)}")
    return results


def own_seeds(request: Request) -> range:
    """The seeds that the command itself asks for.

    Raises:
        ConfigError: they are no range, or more than `max_seeds`.
    """
    seeds = sorted({run.spec.seed for run in request.runs})
    found = range(seeds[0], seeds[-1] + 1)
    if len(found) > len(seeds):
        listed = ",".join(map(str, seeds[:5])) + ",..." * (len(seeds) > 5)
        raise ConfigError(
            f"until=decided is not allowed with seed={listed}: seeds are added to a range without gaps, such as "
            "seed=range(0,15)."
        )
    if len(found) > (most := request.settings.max_seeds):
        raise ConfigError(
            f"max_seeds={most} is not allowed: it must be at least {len(found)}, the seeds that the study begins with; "
            f"or have it begin with fewer, by seed=range({found.start},{found.start + most})."
        )
    return found


def looks(own: range, settings: Settings) -> Iterator[range]:
    """The seeds at each look: those of the study itself, then `seeds_at_once` more each time."""
    last = own.start + settings.max_seeds
    for end in (*range(own.stop, last, settings.seeds_at_once), last):
        yield range(own.start, end)


def judged(
    settings: Settings, study: StudySpec, results: Sequence[RunResult], folders: Sequence[Path]
) -> list[Verdict]:
    """The verdicts on these runs alone, whatever else there is of the study."""
    there = load_study(settings.results, picked=[result.run_id for result in results])
    return verdicts(replace(there, claims=tuple(study.claims), looks="repeated"), folders)


def may_settle(verdict: Verdict, seeds: int) -> bool:
    """Whether it is open for a reason that more seeds may do away with.

    They do away with no other fault than seeds missing for the choice of learning rates. Nor do they where the whole
    interval is closer to the smallest effect of interest than the steps of the grid are fine.
    """
    contrast = verdict.contrast
    if verdict.status != "INCONCLUSIVE":
        return False
    if contrast.obstacle:
        return seeds < contrast.claim.tuning_seeds
    if verdict.n < contrast.claim.min_seeds:
        return True
    low, high = verdict.low + contrast.slack, verdict.high - contrast.slack
    return verdict.because != CAPPED and not is_too_coarse(low, high, contrast.threshold, contrast.slack)


# ------------------------------------------------------------------------------------------------- what is said of it


def announced(seeds: range, settings: Settings) -> str:
    """What is to come after a dry run's look."""
    most = settings.max_seeds
    if len(seeds) == most:
        return f"That is all of max_seeds={most}: the claims would be judged on these seeds alone."
    return (
        f"That is the first look, with the seeds {shown(seeds)}. Then {settings.seeds_at_once} at a time would be "
        f"added, up to {most} in all, until every claim is decided."
    )


def told(
    number: int, seeds: range, found: Sequence[Verdict], hopeful: Sequence[Verdict], settings: Settings
) -> list[str]:
    """The verdicts of a look, and what follows from them."""
    head = f"Look {number}, {plural(len(seeds), 'seed')} ({shown(seeds)}):"
    return [head, *(f"  {row.sentence}" for row in rows_of(found)), outcome(seeds, found, hopeful, settings)]


def outcome(seeds: range, found: Sequence[Verdict], hopeful: Sequence[Verdict], settings: Settings) -> str:
    """Why it goes on, or ends."""
    settled = sum(verdict.status != "INCONCLUSIVE" for verdict in found)
    if settled == len(found):
        return f"Decided: all {len(found)} verdicts, with {plural(len(seeds), 'seed')}."
    counts = f"{settled} of {plural(len(found), 'verdict')} decided"
    hopeless = len(found) - settled - len(hopeful)
    these = f"{hopeless} of the open ones" if hopeful else "what is open"
    rest = f", and more seeds would not settle {these}, for the reason given" if hopeless else ""
    if not hopeful:
        return f"Stopped: {counts}{rest}."
    left = settings.max_seeds - len(seeds)
    if left <= 0:
        return f"Stopped: {counts}{rest}; max_seeds={settings.max_seeds} is reached. A larger one goes on from here."
    return f"{counts}{rest}; {plural(min(left, settings.seeds_at_once), 'more seed')}."


def shown(seeds: range) -> str:
    """`"0 to 14"`."""
    return f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])


def report_command(study: StudySpec, settings: Settings, folders: Sequence[Path]) -> str:
    """As it is to be typed where this command was."""
    own = [folder for folder in folders if folder != conf_dir() / "claim"]
    own = [folder for folder in own if any((folder / f"{claim}.yaml").exists() for claim in study.claims)]
    return commands.report_command(settings.results_dir, study.name, claim_dirs=own[:1])
