"""Which arms of a study the names mean that a person types."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pandas as pd
import yaml

from bnstudy.claims.arms import NULL_WORDS, best_arms
from bnstudy.claims.counterevidence import list_some
from bnstudy.claims.frames import StudyData
from bnstudy.store.files import conf_dir
from bnstudy.validation import ConfigError, nearest

AGAINST = " vs "


def split_names(text: str) -> tuple[str, str]:
    """The two names."""
    parts = text.split(AGAINST) if AGAINST in text else text.split(",")
    names = [part.strip() for part in parts]
    if len(names) != 2 or not all(names):
        raise ConfigError(
            f"compare={text} is not allowed: name two arms of the report, with vs between them, such as "
            "compare='BatchNorm vs NoNorm', each at its best learning rate, or compare='BatchNorm, lr=1 vs NoNorm, "
            "lr=0.1'; or the ids of a run of each, compare=ID1,ID2."
        )
    return names[0], names[1]


def find_arm(study: StudyData, name: str) -> tuple[str, str]:
    """The arm with this name, with a run of this id, or the only one with all these parts in its name.

    A name that leaves only the learning rate open means the arm whose mean validation accuracy is the best; the second
    text then says so, and is empty otherwise.
    """
    runs = study.runs
    of_run = runs.loc[runs["run_id"] == name, "arm"]
    if len(of_run):
        return str(of_run.iloc[0]), ""
    wanted, arms = parts_of(name), [str(arm) for arm in runs["arm"].unique()]
    exact = [arm for arm in arms if arm == name] or [arm for arm in arms if parts_of(arm) == wanted]
    fitting = exact or sorted(arm for arm in arms if wanted <= parts_of(arm))
    if len(fitting) == 1:
        return fitting[0], ""
    if fitting:
        return _best_of_one_family(runs[runs["arm"].isin(fitting)], name)
    known = list_some(sorted(arms), "; ", most=12)
    raise ConfigError(f"compare: there is no arm {name} in {study.name}{nearest(name, arms) or '.'} Known: {known}.")


def _best_of_one_family(runs: pd.DataFrame, name: str) -> tuple[str, str]:
    best: list[dict[str, Any]] = best_arms(runs).astype({"arm": str, "family": str}).to_dict("records")
    if len(best) == 1:
        arm, rate, rates = best[0]["arm"], best[0]["lr"], best[0]["rates"]
        chosen = f"{name} stands for its best learning rate, {rate:g}"
        return arm, f"{chosen}: of {rates} it has the highest mean validation accuracy over all seeds."
    each = [f"{row['panel']}, {row['family']}" for row in best]
    some = list_some(sorted(each), "; ")
    raise ConfigError(f"compare: {name} may be any of {len(each)} networks: {some}. Give more of its name.")


def parts_of(name: str) -> frozenset[str]:
    """The parts of an arm's name, in any order and case; an option such as `batch` or `norm=batch` is its label."""
    parts = [part.strip() for part in re.split(r",(?![^(\[]*[)\]])", name)]
    return frozenset(_part(part) for part in parts if part)


def _part(text: str) -> str:
    key, assigned, value = text.partition("=")
    if not assigned or key == "norm":
        option = value if assigned else key
        return norm_options().get(option, option).lower()
    return f"{key}=null".lower() if value in ("none", *NULL_WORDS.values()) else text.lower()


@cache
def norm_options() -> dict[str, str]:
    """The label of each option of `norm`: `{"batch": "BatchNorm", "none": "NoNorm", ...}`."""
    files = sorted((conf_dir() / "norm").glob("*.yaml"))
    nodes = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in files}
    return {option: str(node["_target_"]).rpartition(".")[2] for option, node in nodes.items() if "_target_" in node}
