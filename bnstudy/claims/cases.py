"""Which families a claim compares: those that have what it says, and those that are like them but for that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from bnstudy.claims import arms
from bnstudy.claims.claim import Claim
from bnstudy.validation import show

Families = tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """The families of the two sides, otherwise alike; one each unless the claim is over several.

    setting: what distinguishes it from the other cases of the panel, in words.
    at_reference: the case at the value of `across` that the claim compares with.
    """

    setting: str
    with_: Families
    without: Families
    at_reference: Case | None = None


def cases(claim: Claim, specs: pd.DataFrame) -> list[Case]:
    """Of one panel's specs (as `Study` has them), in their order."""
    sides = [matching(specs, claim.with_), matching(specs, claim.without or {})]
    if claim.without is None:
        sides[1] = pd.Series(False, specs.index)
    own = specs[sides[0] | sides[1]]
    plain = own.drop(columns=[c for c in arms.LABELS if c in own])
    pieces = {c: arms.piece(plain, c) for c in arms.factors(plain) if c not in ("model", "data", "lr")}
    named = [c for c in pieces if is_of(c, claimed(claim))]
    apart = [*claimed(claim), *claim.across, *(f"{c}." if c in arms.CLASSES else c for c in claim.over)]
    rest = joined(pieces, [c for c in pieces if not is_of(c, apart)], own.index)
    found: list[Case] = []
    for setting in dict.fromkeys(rest.iloc[np.argsort(own["family"].cat.codes, kind="stable")]):
        alike = own[rest == setting]
        inside = _Group(claim, setting, joined(pieces, named, own.index)[alike.index])
        found += inside.cases(alike[sides[0][alike.index]], alike[sides[1][alike.index]])
    return found


@dataclass(frozen=True)
class _Group:
    """Families that agree in all but what the claim is about.

    names: what each run has of that, in words.
    """

    claim: Claim
    setting: str
    names: pd.Series

    def cases(self, with_: pd.DataFrame, without: pd.DataFrame) -> list[Case]:
        if not self.claim.across:
            return list(self._simple(self.setting, with_, without))
        (column, reference), *_ = self.claim.across.items()
        values = {side: texts(rows, column) for side, rows in (("with", with_), ("without", without))}
        at = {v: list(self._simple("", with_[values["with"] == v], without[values["without"] == v]))
              for v in natural(pd.concat([with_, without]), column)}  # fmt: skip
        references = {case.setting: case for case in at.pop(shown(reference), [])}
        short = column.rpartition(".")[2]
        told = {v: f"{short}={v} against {shown(reference)}" for v in at}
        return [
            replace(case, setting=commas(self.setting, case.setting, told[v]), at_reference=references[case.setting])
            for v, inner in at.items()
            for case in inner
            if case.setting in references
        ]

    def _simple(self, setting: str, with_: pd.DataFrame, without: pd.DataFrame) -> Iterator[Case]:
        of_with, of_without = self._by_name(with_), self._by_name(without)
        several = len(of_with) > 1 or len(of_without) > 1
        for one, families in of_with.items():
            if self.claim.without is None:
                yield Case(commas(setting, one if several else ""), families, ())
            for other, against in of_without.items():
                if families != against:
                    told = f"{one or 'with'} against {other or 'without'}" if several else ""
                    yield Case(commas(setting, told), families, against)

    def _by_name(self, side: pd.DataFrame) -> dict[str, Families]:
        """The families of one side in their order, by what they have of what the claim is about."""
        found: dict[str, list[str]] = {}
        for run in side.sort_values("family", kind="stable").drop_duplicates("family").index:
            found.setdefault(self.names[run], []).append(str(side["family"][run]))
        return {name: tuple(families) for name, families in found.items()}


def claimed(claim: Claim) -> list[str]:
    """The columns that the claim speaks of; of a class that differs between the sides, with all its fields."""
    without = claim.without or {}
    return [
        f"{column}." if column in arms.CLASSES and claim.with_.get(column) != without.get(column) else column
        for column in {**claim.with_, **without}
    ]


def is_of(column: str, columns: Sequence[str]) -> bool:
    return any(column == c.rstrip(".") or (c.endswith(".") and column.startswith(c)) for c in columns)


def matching(specs: pd.DataFrame, values: Mapping[str, Any]) -> pd.Series:
    """Which rows have all these values, as one types them; a list stands for any of its values."""
    fits = pd.Series(True, specs.index)
    for column, value in values.items():
        allowed = [shown(v) for v in (value if isinstance(value, list | tuple) else [value])]
        fits &= texts(specs, column).isin(allowed) if column in specs else False
    return fits


def texts(specs: pd.DataFrame, column: str) -> pd.Series:
    """The column's values as one types them; "" for each run where there is no such column."""
    return specs[column].map(shown).astype(object) if column in specs else pd.Series("", specs.index, dtype=object)


def shown(value: Any) -> str:
    missing = value is None or (isinstance(value, float) and np.isnan(value))
    return show(None if missing else value)


def natural(specs: pd.DataFrame, column: str) -> list[str]:
    """The column's values as texts, numbers by size and before others."""
    values = specs[column].unique() if column in specs else np.array([])
    numbers = sorted(v for v in values if isinstance(v, int | float | np.number))
    return list(dict.fromkeys(map(shown, [*numbers, *sorted({*values} - {*numbers}, key=str)])))


def joined(pieces: Mapping[str, pd.Series], columns: Sequence[str], index: pd.Index) -> pd.Series:
    """What the columns say of each run, "" where nothing."""
    rows = zip(*(pieces[c] for c in columns), strict=True) if columns else [()] * len(index)
    return pd.Series([commas(*row) for row in rows], index, dtype=object)


def commas(*parts: str) -> str:
    return ", ".join(part for part in parts if part)
