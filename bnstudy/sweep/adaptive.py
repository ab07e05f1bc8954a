"""Train a study, judge its claims, and add seeds as long as more could settle a verdict (until=decided)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bnstudy.claims.claim import load_claims
from bnstudy.claims.frames import load_study
from bnstudy.claims.verdicts import Verdict, verdicts
from bnstudy.report import commands
from bnstudy.store.files import conf_dir
from bnstudy.sweep.command import plan_study, run
from bnstudy.sweep.messages import plural
from bnstudy.sweep.progress import RunResult
from bnstudy.sweep.request import Request
from bnstudy.sweep.settings import Settings, StudySpec
from bnstudy.validation import ConfigError, printable

WithSeeds = Callable[[range], Request]
"""Returns the command's request with these seeds."""


def decide(first: Request, with_seeds: WithSeeds, folders: Sequence[Path] = ()) -> list[RunResult]:
    """Train and judge look after look, each by its runs alone, so that the same command goes the same way again.

    Args:
        first: the request with the study's own seeds.
        folders: with the user's own claims.

    Raises:
        ConfigError: seeds cannot be added to this study, or as `command.run`.
        RunsFailed, Interrupted: as `command.run`.
    """
    settings, study = first.settings, first.study
    if study is None:
        raise ConfigError("until=decided is not allowed without a study.")
    own = requested_seeds(first)
    load_claims(study.claims, folders)
    results: list[RunResult] = []
    for number, seeds in enumerate(look_seeds(own, settings), 1):
        results = run(first if number == 1 else with_seeds(seeds), folders=folders)
        if settings.dry_run:
            print(describe_first_look(seeds, settings))
            break
        found = judge_runs(settings, study, results, folders)
        hopeful = [verdict for verdict in found if verdict.may_settle]
        if settings.progress:
            print(f"Look {number}, {plural(len(seeds), 'seed')} ({seed_range(seeds)}):")
            print(*(f"  {printable(verdict.sentence)}" for verdict in found), sep="\n")
            print(describe_outcome(seeds, found, hopeful, settings), flush=True)
        if not hopeful:
            break
    if not settings.dry_run:
        plan_study(first, [result.run_id for result in results])
    if settings.progress and not settings.dry_run:
        print(f"For the report: {report_command(study, settings, folders)}")
    return results


def requested_seeds(request: Request) -> range:
    """The seeds that the command itself requests.

    Raises:
        ConfigError: they are not a range, or more than `max_seeds`.
    """
    seeds = sorted({run.spec.seed for run in request.runs})
    found = range(seeds[0], seeds[-1] + 1)
    if len(found) > len(seeds):
        given = ",".join(map(str, seeds[:5])) + ",..." * (len(seeds) > 5)
        raise ConfigError(
            f"until=decided is not allowed with seed={given}: seeds are added to a range without gaps, such as "
            "seed=range(0,15)."
        )
    if len(found) > (most := request.settings.max_seeds):
        raise ConfigError(
            f"max_seeds={most} is not allowed: it must be at least {len(found)}, the seeds that the study begins with; "
            f"or have it begin with fewer, by seed=range({found.start},{found.start + most})."
        )
    return found


def look_seeds(own: range, settings: Settings) -> Iterator[range]:
    """The seeds of each look: those of the study, then `seeds_at_once` more each time."""
    last = own.start + settings.max_seeds
    for end in (*range(own.stop, last, settings.seeds_at_once), last):
        yield range(own.start, end)


def judge_runs(
    settings: Settings, study: StudySpec, results: Sequence[RunResult], folders: Sequence[Path]
) -> list[Verdict]:
    """The verdicts on these runs, without other runs of the study."""
    data = load_study(settings.results, picked=[result.run_id for result in results])
    return verdicts(replace(data, claims=tuple(study.claims), looks="repeated"), folders)


def describe_first_look(seeds: range, settings: Settings) -> str:
    """The looks that would follow a dry run."""
    most = settings.max_seeds
    if len(seeds) == most:
        return f"That is all of max_seeds={most}: the claims would be judged on these seeds alone."
    return (
        f"That is the first look, with the seeds {seed_range(seeds)}. Then {settings.seeds_at_once} at a time would be "
        f"added, up to {most} in all, until every claim is decided."
    )


def describe_outcome(seeds: range, found: Sequence[Verdict], hopeful: Sequence[Verdict], settings: Settings) -> str:
    """Why seeds are added, or not."""
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


def seed_range(seeds: range) -> str:
    """`"0 to 14"`."""
    return f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])


def report_command(study: StudySpec, settings: Settings, folders: Sequence[Path]) -> str:
    """The command of the report, for the same working directory."""
    own = [
        folder
        for folder in folders
        if folder != conf_dir() / "claim" and any((folder / f"{claim}.yaml").exists() for claim in study.claims)
    ]
    return commands.report_command(settings.results_dir, study.name, claim_dirs=own[:1])
