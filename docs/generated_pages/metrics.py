"""What is measured: the metrics of probes, and those that claims compare."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import fields

from bnstudy import ProbeSpec, probes
from bnstudy.claims import metrics
from bnstudy.validation import show
from generated_pages.markdown import code, join, own_doc, prose, split_doc, table

TUNED = {
    "accuracy": "final validation accuracy",
    "best_accuracy": "highest validation accuracy",
    "lowest": "the metric itself",
}


def probe_classes() -> list[type[ProbeSpec]]:
    for module in pkgutil.iter_modules(probes.__path__):
        importlib.import_module(f"bnstudy.probes.{module.name}")
    own = [cls for cls in ProbeSpec.__subclasses__() if cls.__module__.startswith("bnstudy.")]
    return sorted(own, key=lambda cls: cls.__name__)


def claim_metrics() -> dict[str, metrics.Metric]:
    return {name: value for name, value in vars(metrics).items() if isinstance(value, metrics.Metric)}


def page() -> str:
    parts = [
        "# Metrics",
        "## What probes measure",
        "Which layers a metric has is in [Probes](../concepts/probes.md#metrics-and-layers).",
    ]
    for cls in probe_classes():
        text, said = split_doc(own_doc(cls), [f.name for f in fields(cls)])
        rows = [(code(f.name), code(show(f.default)), said[f.name]) for f in fields(cls) if f.name in said]
        parts += [f"### {cls.__name__}", prose(text), table(("key", "default", "meaning"), rows)]
    parts += [
        "## What claims compare",
        "A claim's `metric:` is one of these, or [one of your own](../how-to/own-claim.md#a-metric). A metric is one "
        "number per seed. [Verdicts](../concepts/verdicts.md#learning-rates) explains the views.",
    ]
    for name, metric in claim_metrics().items():
        delta = metric.delta if isinstance(metric.delta, dict) else {} if metric.delta is None else {"": metric.delta}
        facts = {
            "compared as": ", ".join({"log_ratio": "ratio"}.get(scale, scale) for scale in metric.scales),
            "views": ", ".join(map(code, metric.views)),
            "learning rates chosen by": TUNED[metric.tuned_by] if metric.kind in ("of_arm", "of_several") else "",
            "default `delta`": ", ".join(f"{value:g} ({key})".removesuffix(" ()") for key, value in delta.items()),
            "measured by": ", ".join(map(code, metric.names)),
        }
        items = "\n".join(f"- {key}: {value}" for key, value in facts.items() if value)
        parts += [f"### {code(name)}", read_doc(metric), items]
    return join(parts)


def read_doc(metric: metrics.Metric) -> str:
    """The docstring of the metric's function, which decorators may have wrapped."""
    read = metric.read
    inner = [cell.cell_contents for cell in read.__closure__ or () if callable(cell.cell_contents)]
    return next((" ".join((f.__doc__ or "").split()) for f in (read, *inner) if f.__doc__), "")
