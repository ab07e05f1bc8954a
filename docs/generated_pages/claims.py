"""The claims and studies in conf/."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from bnstudy.claims.claim import Claim, load_claims
from bnstudy.store.files import conf_dir
from bnstudy.validation import show
from generated_pages.markdown import code, join, table

BETTER = {"higher": ", higher is better", "lower": ", lower is better", "either": ""}


def studies() -> dict[str, dict[str, Any]]:
    """The studies with a question of their own, by name."""
    paths = sorted((conf_dir() / "study").glob("*.yaml"))
    nodes = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths}
    inner = {
        name: node.get("study", node) for name, node in nodes.items()
    }  # one that sets other keys has a node for it
    return {name: node for name, node in inner.items() if "title" in node}


def page_of_claims() -> str:
    names = [path.stem for path in sorted((conf_dir() / "claim").glob("*.yaml"))]
    parts = [
        "# Claims",
        "[Verdicts](../concepts/verdicts.md) explains how a claim is judged. `delta` is the smallest effect of "
        "interest. An effect is positive, or a ratio above 1, where it supports the claim.",
    ]
    for claim in sorted(load_claims(names), key=lambda claim: claim.order):
        parts += [f"## {code(claim.name)}", claim.statement, facts_of(claim), caveats_of(claim)]
    return join(parts)


def facts_of(claim: Claim) -> str:
    deciding = [name for name, node in studies().items() if claim.name in node.get("claims", ())]
    rows = {
        "source": claim.source,
        "compares": f"{sides(claim.with_)} with {sides(claim.without) if claim.reference is None else claim.reference}",
        "metric": f"[`{claim.metric}`](metrics.md#{claim.metric})" + BETTER[claim.better],
        "delta": in_words(claim.delta, claim),
        "unit": f"{claim.unit}; {claim.opposite}" if claim.opposite else claim.unit,
        "views": ", ".join(map(code, claim.views)),
        "across": code(show_mapping(claim.across)),
        "over": ", ".join(map(code, claim.over)),
        "requires": code(show_mapping(claim.requires)),
        "decided by": ", ".join(f"[`{name}`](studies.md#{name})" for name in deciding),
    }
    return table(("", ""), ((key, value) for key, value in rows.items() if value))


def sides(values: Mapping[str, Any] | None) -> str:
    return code(show_mapping(values or {}))


def show_mapping(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {show(value)}" for key, value in values.items())


def in_words(delta: Any, claim: Claim) -> str:
    if isinstance(delta, Mapping):
        return ", ".join(f"{value:g} ({name})" for name, value in delta.items())
    return f"{delta:g}" + (", a ratio" if claim.scale == "log_ratio" else "")


def caveats_of(claim: Claim) -> str:
    return "\n".join(f"- {caveat}" for caveat in claim.caveats)


def page_of_studies() -> str:
    parts = [
        "# Studies",
        "`bnstudy study=NAME scale=SCALE` trains one, `bnstudy-report study=NAME` draws its report. A study's runs are "
        "all combinations of the values below; where the table has no `lr` or `seed`, there are seven learning rates "
        "from 0.00316 to 3.16 and 14 seeds. `dry_run=true` prints the plan.",
    ]
    for name, node in studies().items():
        claims = ", ".join(f"[`{claim}`](claims.md#{claim})" for claim in node.get("claims", ()))
        scales = node.get("scales") or {}
        rows = [("every scale", overrides(node.get("sweep") or {}))]
        rows += [(code(f"scale={scale}"), overrides(values or {})) for scale, values in scales.items()]
        parts += [f"## {code(name)}", node["title"], f"Claims: {claims}." if claims else "", table(("", ""), rows)]
    return join(parts)


def overrides(values: Mapping[str, Any]) -> str:
    return " ".join(code(f"{key}={show(value)}") for key, value in values.items())
