from __future__ import annotations

import pytest

from bnstudy.claims.verdicts import verdicts
from bnstudy.report.verdict_rows import VerdictRow, rows_of, summarize_claim, tally
from tests import sweeps


def rows(claim: str = "dead_relus", **changes) -> list[VerdictRow]:
    return rows_of(verdicts(sweeps.of(claims=(claim,), **changes)))


def test_the_reason_has_the_number_of_seeds_to_add() -> None:
    assert rows(fewer=0.15, seeds=13)[0].reason == "9 of at least 10 seeds; about 1 more seed would settle it"


@pytest.mark.parametrize(
    ("claim", "views"),
    [
        ("dead_relus", ["each at its best, 0.316 with and 0.1 without", "same learning rate, 0.1"]),
        ("higher_learning_rates", ["over all learning rates"]),
    ],
)
def test_views_are_named_with_their_learning_rates(claim: str, views: list[str]) -> None:
    assert [row.view for row in rows(claim)] == views


def test_one_case_is_summarized_by_its_result() -> None:
    found = rows(fewer=0.15)
    assert found[0].sentence == f"SUPPORTED: With batch normalization fewer ReLU units die. {found[0].result}"
    assert summarize_claim(found) == f"for {found[0].result}"
    assert found[0].result.startswith(f"MLP on Digits, {found[0].view}: {found[0].interval} percentage points fewer")


def test_several_cases_are_summarized_by_their_statuses() -> None:
    supported, contradicted = rows(fewer=0.15), rows(fewer=-0.15)
    assert summarize_claim([*supported, *supported]) == "in all 2 cases, each at its best."
    both = [*supported, *contradicted]
    assert summarize_claim(both) == "Of 2 cases, each at its best: SUPPORTED in 1, CONTRADICTED in 1."
    assert tally(both) == "4 verdicts in all views: 2 SUPPORTED, 2 CONTRADICTED."


def test_cells_without_a_number_are_dashes() -> None:
    (row, _) = rows(seeds=4)
    assert (row.effect, row.bounds, row.p, row.d_z, row.more) == ("-", "-", "-", "-", "10")
