"""Verdicts and the sentences that state them."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml

from bnstudy.claims.cases import Case
from bnstudy.claims.claim import claim_of, load_claims
from bnstudy.claims.contrasts import Contrast
from bnstudy.claims.verdicts import Verdict, judge
from bnstudy.report.wording import answer, claim_sentences, claim_title
from bnstudy.store.files import conf_dir
from tests.sweeps import NODE

FASTER, RATES, DEAD = "faster_convergence", "higher_learning_rates", "dead_relus"
HERE = "For this MLP on Digits"
HELPS = "Does batch normalization help a small network to learn, and at which learning rates?"


def verdict(claim: str, effect: float, model: str = "MLP", setting: str = "", n: int = 12, **fields) -> Verdict:
    """A verdict on differences near `effect`, a ratio where the claim is about ratios; NaN for an inconclusive one."""
    about = claim_of(NODE, "own") if claim == "own" else load_claims([claim])[0]
    mean = np.log(effect) if about.scale == "log_ratio" else effect
    wide = np.isnan(effect)
    d = (0.0 if wide else mean) + np.linspace(-1, 1, n) * about.threshold("Digits") * (20 if wide else 0.6)
    case = Case(model, "Digits", setting, ("BatchNorm",), ("NoNorm",))
    seeds = pd.Series(d, range(n), dtype=float)
    values = pd.DataFrame({"with": 50.0, "without": 50.0}, range(n))
    return judge(Contrast(about, case, about.views[0], "quickstart", d=seeds, values=values, **fields))


NAN = float("nan")


@pytest.mark.parametrize(
    ("results", "question", "sentence"),
    [
        (
            [(FASTER, 2.9), (RATES, 6.8), (DEAD, 0.4)],
            HELPS,
            "For this MLP on Digits, yes: 2.9x fewer steps, 6.8x the learning rate, no meaningful difference in ReLU "
            "units that died.",
        ),
        (
            [(FASTER, 2.9), (RATES, NAN)],
            HELPS,
            "For this MLP on Digits, partly: 2.9x fewer steps; undecided: largest tolerated learning rate.",
        ),
        ([(FASTER, 0.4)], HELPS, "For this MLP on Digits, no: 2.5x more steps."),
        ([(FASTER, 1.01)], HELPS, f"{HERE}, no: no meaningful difference in steps to the same accuracy."),
        ([(FASTER, 2.9)], "What does it cost?", "For this MLP on Digits: 2.9x fewer steps."),
        ([(FASTER, 2.9)], "Does it help, and is that why?", "For this MLP on Digits: 2.9x fewer steps."),
        (
            [("scale_and_shift_matter", -3.0)],
            "Do scale and shift matter?",
            f"{HERE}: 3.0 points less accuracy with scale and shift.",
        ),
        (
            [(FASTER, NAN), (DEAD, NAN)],
            HELPS,
            "For this MLP on Digits, undecided: steps to the same accuracy, ReLU units that died.",
        ),
        ([], HELPS, "This study judges no claim: its findings say what was measured."),
    ],
)  # fmt: skip
def test_the_answer_states_what_is_decided_and_names_what_is_not(results, question, sentence):
    assert answer([verdict(claim, effect) for claim, effect in results], question) == sentence


def test_the_answer_counts_networks():
    found = [verdict(FASTER, effect, model) for model, effect in zip("ABCD", (2.0, 3.0, NAN, 2.5), strict=True)]
    assert answer(found, HELPS) == "On 4 networks, partly: 2.0x to 3.0x fewer steps on 3; the rest undecided."


def test_the_answer_counts_the_cases_of_a_network():
    found = [verdict(FASTER, effect, setting=s) for s, effect in zip("abc", (2.0, 0.5, 1.0), strict=True)]
    assert answer(found, HELPS) == (
        "For this MLP on Digits, partly: 2.0x more steps in 1 of 3 cases, 2.0x fewer in 1, no meaningful "
        "difference in steps to the same accuracy in 1."
    )


def test_too_few_seeds_are_the_answer():
    found = [verdict(FASTER, 2.9, n=3), verdict(DEAD, 20, n=2)]
    assert answer(found, HELPS) == "Too few seeds for an answer: 3 of at least 10."


def test_without_any_run_the_answer_is_the_reason():
    found = [verdict(FASTER, 2.9, n=0, obstacle="none of its runs is finished")]
    assert answer(found, HELPS) == "No answer yet: none of its runs is finished."


def test_claims_that_check_the_experiment_are_no_part_of_the_answer():
    found = [verdict("dropout_helps", 3.0), verdict("less_need_of_dropout", 4.0)]
    assert answer(found) == "For this MLP on Digits: 4.0 points less gain from dropout."


def test_an_answer_has_few_words_and_counts_what_it_leaves_out():
    found = [
        verdict(name, 30)
        for name in ("less_init_dependence", "init_schemes_matter_less", "more_inits_work", "regularizes", "dead_relus")
    ]
    sentence = answer(found)
    assert len(sentence.split()) <= 35
    assert sentence.endswith("30 points more sizes of initial weights, and 2 more results.")


def test_an_answer_names_contradictions_first():
    found = [verdict(FASTER, effect, setting=s) for s, effect in zip("abc", (2.0, 3.0, NAN), strict=True)]
    found += [verdict(RATES, effect, setting=s) for s, effect in zip("ab", (12, NAN), strict=True)]
    found += [verdict("dead_relus", effect, setting=s) for s, effect in zip("ab", (30, -30), strict=True)]
    assert answer(found) == (
        "For this MLP on Digits: 30 points more units that died in 1 of 2 cases, 30 points fewer in 1, and 2 more "
        "results; the rest undecided."
    )


def test_the_answer_of_several_studies_counts_claims():
    found = [verdict(FASTER, 2.9), verdict(RATES, 4, "A"), verdict(RATES, NAN, "B"), verdict(DEAD, NAN)]
    other = [replace(v, contrast=replace(v.contrast, study="other")) for v in found[1:]]
    assert answer([found[0], *other]) == "Of 3 claims, 1 holds in every case, 1 holds in some cases and 1 is undecided."
    mixed = [verdict(RATES, 0.1, "A"), verdict(RATES, NAN, "B"), verdict("dead_relus", 0.4, "A")]
    mixed += [verdict("dead_relus", NAN, "B")]
    other = [replace(v, contrast=replace(v.contrast, study="other")) for v in mixed]
    assert answer([found[0], *other]) == (
        "Of 3 claims, 1 holds in every case, 1 is contradicted in some cases and 1 makes no meaningful difference in "
        "some cases."
    )


def test_the_number_of_an_inconclusive_claim_is_no_finding():
    one = verdict(FASTER, 2.9, n=9)
    assert one.status == "INCONCLUSIVE"
    assert "2.9" in one.interval
    assert "2.9" not in claim_title([one]) + answer([one]) + answer([one, verdict(RATES, 4)])


@pytest.mark.parametrize(
    ("claim", "effect", "title"),
    [
        (FASTER, 2.9, "BatchNorm reaches the same accuracy in 2.9x fewer steps"),
        (FASTER, 0.4, "BatchNorm reaches the same accuracy in 2.5x more steps"),
        (FASTER, NAN, "Undecided whether batch normalization makes training reach the same accuracy in fewer steps"),
        (DEAD, 0.4, "No meaningful difference in ReLU units that died: at most 1.7 points"),
        ("own", 3.0, "It is better: 3.0 points"),
        ("own", -3.0, "Against the claim: -3.0 points"),
    ],
)
def test_a_title_states_the_result(claim, effect, title):
    assert claim_title([verdict(claim, effect)]) == title


def test_a_title_counts_the_cases():
    found = [verdict(FASTER, effect, model) for model, effect in zip("ABCD", (2.0, 3.0, NAN, 1.0), strict=True)]
    assert claim_title(found) == (
        "BatchNorm reaches the same accuracy in 2.0x to 3.0x fewer steps on 2 of 4 networks; no meaningful difference "
        "on 1; undecided on 1"
    )


@pytest.mark.parametrize(
    ("bounds", "title"),
    [
        ({}, "BatchNorm tolerates 0.20x to 0.40x the learning rate on both networks"),
        ({("with", "at least"): 1}, "BatchNorm tolerates at least 0.20x the learning rate on both networks"),
        ({("with", "at most"): 1}, "BatchNorm tolerates at most 0.40x the learning rate on both networks"),
    ],
)
def test_ratios_below_1_are_ordered_by_their_numbers(bounds, title):
    found = [verdict(RATES, effect, model, bounds=bounds) for model, effect in zip("AB", (0.4, 0.2), strict=True)]
    assert claim_title([replace(v, status="CONTRADICTED") for v in found]) == title


def test_two_sentences_say_how_large_the_effect_is_and_what_that_means():
    rates = {"with": {1.0: 12}, "without": {0.316: 10, 0.562: 2}}
    norms = {"with": "BatchNorm", "without": "NoNorm"}
    assert claim_sentences([verdict(FASTER, 2.9, rates=rates, norms=norms)]) == [
        "The geometric mean over 12 seeds is 2.9x fewer steps (95% interval 2.7 to 3.1), each side at its best "
        "learning rate: 1 with BatchNorm and 0.316 (10 seeds) or 0.562 (2) without.",
        "SUPPORTED: the whole interval lies beyond 1.25x, the smallest effect of interest.",
    ]
    several = [verdict(FASTER, effect, model) for model, effect in zip("AB", (2.0, NAN), strict=True)]
    assert claim_sentences(several)[0].endswith("; INCONCLUSIVE on 1.")


def test_several_cases_may_have_a_single_seed():
    found = [verdict(FASTER, 2.0, model, n=1) for model in "AB"]
    assert claim_sentences(found)[1].startswith("Each network has 1 seed, ")


def test_smallest_effects_of_several_datasets_are_told_apart():
    found = [verdict("regularizes", 3.0, model) for model in "ABC"]
    case = replace(found[1].contrast.case, data="MNIST")
    found[1] = replace(found[1], contrast=replace(found[1].contrast, case=case))
    deltas = "1 percentage point on Digits or 0.5 percentage points on MNIST"
    assert claim_sentences(found)[1].endswith(f"an effect counts beyond {deltas}, the smallest of interest.")


def test_a_side_is_named_by_its_norm():
    norms = {"with": "LayerNorm", "without": "BatchNorm"}
    one = verdict("alternatives", 3.0, rates={"with": {1.0: 12}, "without": {0.1: 12}}, norms=norms)
    one = replace(one, contrast=replace(one.contrast, view="best_rate"))
    assert claim_sentences([one])[0].endswith(": 1 with LayerNorm and 0.1 with BatchNorm.")


STUDIES = [yaml.safe_load(path.read_text()) for path in sorted((conf_dir() / "study").glob("*.yaml"))]


@pytest.mark.parametrize("study", [node for node in STUDIES if node.get("claims")], ids=lambda node: node["name"])
@pytest.mark.parametrize("seed", range(4))
def test_every_study_has_an_answer_titles_and_sentences(study, seed):
    rng = np.random.default_rng(seed)
    sides = [*range(1 + seed)]
    found = [
        verdict(claim, rng.choice([0.3, 1.0, 40.0, NAN]), model=f"Net{i % 2}", setting=f"depth={i}", n=12 - seed)
        for claim in study["claims"]
        for i in sides
    ]
    texts = [answer(found, study["title"])]
    for claim in study["claims"]:
        of_claim = [v for v in found if v.contrast.claim.name == claim]
        texts += [f"{claim_title(of_claim)}.", *claim_sentences(of_claim)]
    assert len(texts[0].split()) <= 40
    for text in texts:
        assert re.fullmatch(r"[A-Z].*[^.]\.", text)
        assert not re.search(r"\b(nan|inf|None)\b|\{|  ", text)
