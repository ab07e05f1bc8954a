"""The table that `benchmark.py sweep` prints."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """A row of the table. `ok` is None without a target; `raw` has the measurements."""

    what: str
    measured: str
    target: str = ""
    ok: bool | None = None
    raw: dict[str, Any] = field(default_factory=dict)


def speedup(what: str, seconds: float, peer: float, least: float | None = None, **raw: Any) -> Row:
    """The peer's seconds divided by ours, which must be at least `least`."""
    ratio = peer / seconds
    measured = f"{ratio:.2f} x ({peer:.1f} s / {seconds:.1f} s)"
    target = ("", None) if least is None else (f">= {least:g} x", ratio >= least)
    return Row(what, measured, *target, raw={"seconds": seconds, "peer": peer, **raw})


def at_most(what: str, value: float, most: float, unit: str = "s", digits: int = 1, **raw: Any) -> Row:
    measured = f"{value:.{digits}f} {unit}"
    return Row(what, measured, f"<= {most:g} {unit}", value <= most, {"value": value, **raw})


def table(rows: list[Row]) -> str:
    marks = {None: "", True: "yes", False: "NO"}
    cells = [("what", "measured", "target", "ok")]
    cells += [(row.what, row.measured, row.target, marks[row.ok]) for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(4)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)


def processor() -> str:
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
