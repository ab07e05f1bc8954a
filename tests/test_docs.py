"""What the pages in docs/ list is what there is."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from bnstudy.probes.activations import Activations
from bnstudy.probes.base import ProbeSpec
from bnstudy.probes.curvature import Sharpness
from bnstudy.probes.fit import TrainingFit
from bnstudy.probes.gradients import Backprop, GradientNorm
from bnstudy.probes.landscape import Landscape
from bnstudy.probes.normalization import NormInternals
from bnstudy.probes.shift import CovariateShift
from bnstudy.probes.units import DeadUnits
from bnstudy.probes.weights import WeightSize
from bnstudy.report.figures import load_figures
from bnstudy.train.serial import SerialRun
from tests.conftest import CPU, spec_of

DOCS = Path(__file__).parents[1] / "docs"
PROBES = (
    Activations, Backprop, CovariateShift, DeadUnits, GradientNorm, Landscape, NormInternals, Sharpness, TrainingFit,
    WeightSize,
)  # fmt: skip


def measured(digits, *overrides: str) -> set[str]:
    """The metrics that a run of two updates with all probes has beside its losses and accuracies."""
    probes: dict[str, ProbeSpec] = {probe.__name__.lower(): probe() for probe in PROBES}
    outcomes = []
    spec = replace(spec_of("norm=batch", "model.width=16", "steps=2", *overrides), probe=probes)
    SerialRun(spec, digits, CPU).train(lambda _, outcome: outcomes.append(outcome))
    rows = outcomes[0].metrics.to_pandas()
    return set(rows[rows["split"] == ""]["metric"]) - {"lr"}


def test_the_store_page_lists_every_metric(digits):
    text = (DOCS / "store.md").read_text()
    rows = [line.split("|") for line in text.partition("| probe | metric |")[2].splitlines() if line.startswith("|")]
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row[2])} - {"_scaled"}
    found = measured(digits) | measured(digits, "model.activation=tanh")
    assert {name.removesuffix("_scaled") for name in found} == listed
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[1])} == {probe.__name__ for probe in PROBES}


def test_the_report_page_lists_every_figure():
    text = (DOCS / "report.md").read_text()
    listed = [
        name for row in re.findall(r"^\| ([a-z-]+(?:, [a-z-]+)*) \|", text, re.MULTILINE) for name in row.split(", ")
    ]
    assert len(listed[1:]) == len(load_figures())
