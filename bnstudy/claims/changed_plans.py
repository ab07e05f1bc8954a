"""Plans that were changed by hand after a report on them was drawn."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from bnstudy.claims import arms
from bnstudy.claims.counterevidence import list_some
from bnstudy.claims.frames import StudyData
from bnstudy.store.loading import load_specs
from bnstudy.store.plans import Plans
from bnstudy.store.runs import Store
from bnstudy.validation import ConfigError


def mark_reported(store: Store, study: StudyData) -> None:
    """Remember in the store that a report on the study was drawn, if the store can be written; a packed one cannot."""
    if study.scale is not None and study.looks == "once":
        with suppress(ConfigError, OSError):
            Plans(store.results_dir).mark_reported(study.name, study.scale, _planned(study))


def find_changes(store: Store, study: StudyData) -> list[str]:
    """How the study's seeds and arms differ from the first other plan on which a report was drawn, in sentences.

    A variant is compared with the study that it changes and with other variants of it too, in the seeds of the arms
    that it shares with them, if a report on those was drawn before the variant was planned. Learning rates are not
    compared: they are chosen on validation data, and a second pass adds some. Where seeds are added until the claims
    are decided, the verdicts allow for it.
    """
    if study.scale is None or study.looks == "repeated":
        return []
    stored, planned = Plans(store.results_dir), _planned(study)
    own, since = stored.reported(study.name, study.scale), stored.planned_since(study.name, study.scale)
    every = [mark for name in stored.relatives(study.name) for mark in stored.reported(name, study.scale)]
    others = [mark for mark in every if mark.first_drawn < since]
    found = (
        describe_change(store, mark.run_ids, planned, only_seeds)
        for marks, only_seeds in ((own, False), (others, True))
        for mark in marks
        if {*mark.run_ids} != planned
    )
    return next(filter(None, found), [])


def _planned(study: StudyData) -> set[str]:
    return {*study.planned, *study.repeats}


def describe_change(
    store: Store, reported: Collection[str], planned: Collection[str], only_seeds: bool = False
) -> list[str]:
    """What distinguishes the plan of a report from the present one; empty if both have the same arms and seeds.

    only_seeds: leave out arms that only one of the two has.
    """
    specs = load_specs(store, {*reported, *planned}, damages={})  # the report names the damaged ones
    if specs.empty:
        return []
    aside = [c for c in specs if c in ("seed", "lr") or arms.is_recorded(c)]
    specs["setting"] = arms.distinct(specs.drop(columns=aside))[1]
    before, now = (
        specs[specs["run_id"].isin(ids)].groupby("setting")["seed"].agg(frozenset) for ids in (reported, planned)
    )
    sentences, both = [], before.index.intersection(now.index)
    changed = both[before[both] != now[both]]
    if len(changed):
        old, new = (frozenset().union(*seeds[changed]) for seeds in (before, now))
        verb = "extended" if old < new else "changed"
        sentences.append(
            f"This study was {verb} after a report on {describe_seeds(old)} was drawn (now {describe_seeds(new)}): "
            "seeds that are chosen because of a result make its verdicts too sure. until=decided adds seeds validly."
        )
    if not only_seeds and (len(both) < len(before) or len(both) < len(now)):
        verb = "added to" if len(both) == len(before) else "left out of" if len(both) == len(now) else "changed in"
        sentences.append(
            f"Arms were {verb} this study after a report was drawn: a comparison that is chosen because of a result "
            "makes its verdict too sure."
        )
    return sentences


def describe_seeds(seeds: Collection[int]) -> str:
    """`"seeds 0 to 13"`."""
    found = sorted(map(int, seeds))
    if len(found) > 2 and found[-1] - found[0] == len(found) - 1:
        return f"seeds {found[0]} to {found[-1]}"
    return f"{'seed' if len(found) == 1 else 'seeds'} {list_some(found)}"
