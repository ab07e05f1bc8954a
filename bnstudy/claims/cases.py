"""The cases of a claim: which families of arms it compares.

A case is two sides of one network and dataset that agree in everything but the claim's own columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from bnstudy.claims import arms
from bnstudy.claims.arms import as_typed, commas, join_pieces
from bnstudy.claims.claim import Claim

Families = tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """The families of the two sides; one each unless the claim is over several.

    panel: of the families: a model on a dataset.
    setting: what distinguishes it from the other cases of the panel, in words.
    without: empty where the claim compares with a reference.
    at_reference: the case at the value of `across` that the claim compares with.
    """

    model: str
    data: str
    setting: str
    with_: Families
    without: Families
    at_reference: Case | None = None

    @property
    def panel(self) -> str:
        return f"{self.model} on {self.data}"

    @property
    def name(self) -> str:
        """`"MLP on Digits, batch_size=8"`."""
        return commas(self.panel, self.setting)

    @property
    def families(self) -> set[str]:
        """Those of both sides, and of the case at the reference."""
        return {family for square in self.squares for family in (*square.with_, *square.without)}

    @property
    def squares(self) -> list[Case]:
        """The case itself, and that at the reference of an interaction."""
        return [self, self.at_reference] if self.at_reference else [self]


def cases(claim: Claim, specs: pd.DataFrame) -> list[Case]:
    """The claim's cases among one panel's specs (as in `StudyData`), in their order."""
    sides = [matching(specs, claim.with_), matching(specs, claim.without or {})]
    if claim.without is None:
        sides[1] = pd.Series(False, specs.index)
    own = specs[sides[0] | sides[1]]
    plain = own.drop(columns=[c for c in arms.LABELS if c in own])
    pieces = {c: arms.piece(plain, c) for c in arms.factors(plain) if c not in ("model", "data", "lr")}
    named = [c for c in pieces if is_of(c, claimed_columns(claim))]
    apart = [*claimed_columns(claim), *claim.across, *(f"{c}." if c in arms.CLASSES else c for c in claim.over)]
    rest = join_pieces(own, pieces, [c for c in pieces if not is_of(c, apart)])
    names = join_pieces(own, pieces, named)
    found: list[Case] = []
    for setting in dict.fromkeys(rest.iloc[np.argsort(own["family"].cat.codes, kind="stable")]):
        group = own[rest == setting]
        with_, without = (group[side[group.index]] for side in sides)
        found += _cases_of_group(claim, setting, names, with_, without)
    return found


def empty_case(specs: pd.DataFrame) -> Case:
    """Stands for a panel in which the claim has no case."""
    model, data = (str(specs[c].iloc[0]) for c in ("model", "data"))
    return Case(model, data, "", (), ())


def name_values(values: Mapping[str, Any]) -> str:
    """`"norm=BatchNorm, norm.momentum=[0.5,0.9]"`: the runs of one side of a claim."""
    return ", ".join(f"{column}={as_typed(value)}" for column, value in values.items())


def explain_no_case(claim: Claim, specs: pd.DataFrame) -> str:
    """Why a panel has no case of the claim."""
    for side, values in (("with", claim.with_), ("without", claim.without or {})):
        if not matching(specs, values).any():
            return f"no runs {side} it ({name_values(values)})"
    for column, value in claim.across.items():
        return f"no two families at {column}={as_typed(value)} and another value of it that differ in it alone"
    return "no two families differ in it alone"


def _cases_of_group(
    claim: Claim, setting: str, names: pd.Series, with_: pd.DataFrame, without: pd.DataFrame
) -> list[Case]:
    """Cases of families that agree in everything but the claim's columns.

    names: what each run has in those columns, in words.
    """
    if not claim.across:
        return list(_simple(claim, setting, names, with_, without))
    (column, reference), *_ = claim.across.items()
    at = {
        v: list(_simple(claim, "", names, *(side[texts(side, column) == v] for side in (with_, without))))
        for v in natural_order(pd.concat([with_, without]), column)
    }
    references = {case.setting: case for case in at.pop(as_typed(reference), [])}
    shown = arms.label_texts(column, pd.Series([*at, as_typed(reference)], [*at, ""], dtype=object))
    contrast = {v: f"{arms.short_name(column)}={shown[v]} against {shown['']}" for v in at}
    return [
        replace(case, setting=commas(setting, case.setting, contrast[v]), at_reference=references[case.setting])
        for v, inner in at.items()
        for case in inner
        if case.setting in references
    ]


def _simple(claim: Claim, setting: str, names: pd.Series, with_: pd.DataFrame, without: pd.DataFrame) -> Iterator[Case]:
    """The cases of a group without interaction: each of the names of one side against each of the other."""
    of_with, of_without = _families_by_name(names, with_), _families_by_name(names, without)
    several = len(of_with) > 1 or len(of_without) > 1
    for one, families in of_with.items():
        model, data = (str(with_[c].iloc[0]) for c in ("model", "data"))
        if claim.without is None:
            yield Case(model, data, commas(setting, one if several else ""), families, ())
        for other, against in of_without.items():
            if families != against:
                both = f"{one or 'with'} against {other or 'without'}" if several else ""
                yield Case(model, data, commas(setting, both), families, against)


def _families_by_name(names: pd.Series, side: pd.DataFrame) -> dict[str, Families]:
    """The families of one side in their order."""
    found: dict[str, list[str]] = {}
    for run in side.sort_values("family", kind="stable").drop_duplicates("family").index:
        found.setdefault(names[run], []).append(str(side["family"][run]))
    return {name: tuple(families) for name, families in found.items()}


def claimed_columns(claim: Claim) -> list[str]:
    """The columns that the claim is about; of a class that differs between the sides, with all its fields."""
    without = claim.without or {}
    return [
        f"{column}." if column in arms.CLASSES and claim.with_.get(column) != without.get(column) else column
        for column in {**claim.with_, **without}
    ]


def is_of(column: str, columns: Sequence[str]) -> bool:
    """Whether the column is one of these, or a field of those that end with a dot."""
    return any(column == c.rstrip(".") or (c.endswith(".") and column.startswith(c)) for c in columns)


def matching(specs: pd.DataFrame, values: Mapping[str, Any]) -> pd.Series:
    """Which rows have all these values, as typed on the command line; a list stands for any of its values."""
    fits = pd.Series(True, specs.index)
    for column, value in values.items():
        allowed = [as_typed(v) for v in (value if isinstance(value, list | tuple) else [value])]
        fits &= texts(specs, column).isin(allowed) if column in specs else False
    return fits


def texts(specs: pd.DataFrame, column: str) -> pd.Series:
    """The column's values as typed; "" for each run where there is no such column."""
    return specs[column].map(as_typed).astype(object) if column in specs else pd.Series("", specs.index, dtype=object)


def natural_order(specs: pd.DataFrame, column: str) -> list[str]:
    """The column's values as texts, numbers by size and before others."""
    values = specs[column].unique() if column in specs else np.array([])
    numbers = sorted(v for v in values if isinstance(v, int | float | np.number))
    return list(dict.fromkeys(map(as_typed, [*numbers, *sorted({*values} - {*numbers}, key=str)])))
