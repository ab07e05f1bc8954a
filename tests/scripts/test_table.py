from __future__ import annotations

from pathlib import Path

import pytest

from bnstudy.claims.claim import load_claims
from bnstudy.report.tables import VERDICT_COLUMNS, verdict_table
from scripts.published.files import README, not_judged_by
from scripts.published.record import PUBLISHED
from scripts.published.table import BEGIN, END, replace_block, table

ROOT = Path(__file__).parents[2]


def entry(claim: str, data: str, status: str, effect: float, **changes: object) -> dict[str, object]:
    """An entry of claims.json."""
    about = load_claims([claim])[0]
    known = {
        "claim": claim, "statement": about.statement, "data": data, "primary": True, "status": status, "effect_is": "",
        "effect": effect, "ci_low": 0.9 * effect, "ci_high": 1.1 * effect, "scale": about.scale,
    }  # fmt: skip
    return {**dict.fromkeys(VERDICT_COLUMNS), **known, **changes}


def rows(*entries: dict[str, object]) -> list[list[str]]:
    """The cells of the table's rows."""
    lines = table(verdict_table(entries)).splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_digits_are_shown_where_their_verdict_differs() -> None:
    same = entry("faster_convergence", "Digits", "SUPPORTED", 2.9)
    other = entry("faster_convergence", "Digits", "INCONCLUSIVE", 1.2)
    mnist = entry("faster_convergence", "MNIST", "SUPPORTED", 2.0)
    statement = "Batch normalization makes training reach the same accuracy in fewer steps"
    assert rows(mnist, same) == [[statement, "SUPPORTED, 2.0x fewer steps (1.8 to 2.2)", "the same verdicts", ""]]
    assert rows(mnist, other)[0][2] == "INCONCLUSIVE, 1.2x fewer steps (1.1 to 1.3)"
    assert rows(mnist, same, other)[0][2].startswith("SUPPORTED in 1 of 2")


def test_a_claim_on_digits_alone_has_its_verdict_there() -> None:
    assert rows(entry("faster_convergence", "Digits", "SUPPORTED", 2.9))[0][1:] == [
        "", "SUPPORTED, 2.9x fewer steps (2.6 to 3.2)", "",
    ]  # fmt: skip


def test_digits_that_published_runs_judge_are_not_added() -> None:
    own = [entry("faster_convergence", "Digits", "SUPPORTED", 2.9), entry("dead_relus", "MNIST", "SUPPORTED", 9.0)]
    digits = [entry(name, "Digits", "INCONCLUSIVE", 1.0) for name in ("faster_convergence", "dead_relus")]
    assert not_judged_by(own, digits) == digits[1:]


def test_cases_are_counted_by_verdict_with_the_reach_of_their_effects() -> None:
    found = [entry("faster_convergence", "MNIST", "SUPPORTED", effect) for effect in (3.0, 1.5)]
    found.append(entry("faster_convergence", "MNIST", "INCONCLUSIVE", 1.1))
    assert rows(*found)[0][1] == "SUPPORTED in 2 of 3, 1.5x to 3.0x fewer steps; INCONCLUSIVE in 1 of 3"


def test_cifar10_has_a_column_and_other_views_have_none() -> None:
    found = [entry("dead_relus", "MNIST", "NEGLIGIBLE", 0.1), entry("dead_relus", "CIFAR-10 (JPEG)", "SUPPORTED", 9.0)]
    found.append(entry("dead_relus", "MNIST", "SUPPORTED", 50.0, primary=False))
    assert [cell.partition(",")[0] for cell in rows(*found)[0][1:]] == ["NEGLIGIBLE", "", "SUPPORTED"]


def test_a_claim_without_an_effect_has_its_verdict() -> None:
    nothing = entry("dead_relus", "MNIST", "INCONCLUSIVE", 1.0) | {"effect": None, "ci_low": None, "ci_high": None}
    assert rows(nothing)[0][1] == "INCONCLUSIVE"


def test_a_block_replaces_what_is_between_the_marks() -> None:
    assert replace_block(f"a\n{BEGIN}\nold\n{END}\nb", " new\n") == f"a\n{BEGIN}\nnew\n{END}\nb"
    with pytest.raises(ValueError, match=r"README\.md has no lines"):
        replace_block("nothing", "new")


def test_the_readme_has_the_published_table() -> None:
    readme, file = (ROOT / README).read_text(), ROOT / PUBLISHED / "verdicts.csv"
    block = readme.partition(BEGIN)[2].partition(END)[0]
    assert block
    if not file.exists():
        pytest.skip("nothing is published")
    assert table(file.read_text()) in block
