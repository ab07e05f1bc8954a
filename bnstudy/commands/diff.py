"""`bnstudy diff RUN RUN`: the settings in which two runs differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bnstudy.commands.arguments import find_run, read_arguments, say
from bnstudy.commands.settings import MISSING, same, typed
from bnstudy.report.terminal import align
from bnstudy.store.flat import flatten, spec_columns

HELP = """The settings in which two runs differ, and nothing else.

bnstudy diff 0a1b2c3d 5e6f7a8b    by the first digits of their ids, at least 4
"""


def run(arguments: Sequence[str]) -> int:
    given = read_arguments("diff", HELP, arguments, runs=2)
    first, second = (find_run(given.store, start) for start in given.named)
    if first == second:
        say(f"Both are run {first}.")
        return 0
    one, other = settings(given.store.config(first)), settings(given.store.config(second))
    tops = [key.partition(".")[0] for key in (*one, *other)]
    keys = sorted({**one, **other}, key=lambda key: tops.index(key.partition(".")[0]))
    rows = [[key, *(shown(of.get(key, MISSING)) for of in (one, other))] for key in keys if differs(one, other, key)]
    say(align([["setting", first, second], *rows]) if rows else f"{first} and {second} have the same settings.")
    return 0


def settings(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Each field by its dotted key, and the name of each class by that of its group or probe."""
    flat: dict[str, Any] = {}
    for key, node in spec.items():
        parts = {f"probe.{name}": probe for name, probe in node.items()} if key == "probe" else {key: node}
        for name, part in parts.items():
            flat |= spec_columns({name: part}) | flatten({name: part})
    return flat


def differs(first: Mapping[str, Any], second: Mapping[str, Any], key: str) -> bool:
    """Whether a key differs, and no other one says so already.

    The name of a class stands for its `_target_`, and for all fields of a probe that one of the runs lacks.
    """
    owner, _, field = key.rpartition(".")
    if field == "_target_" and first.get(owner) != second.get(owner):
        return False
    probe = ".".join(key.split(".")[:2])
    if key.startswith("probe.") and key != probe and (probe in first) != (probe in second):
        return False
    return key not in first or key not in second or not same(first[key], second[key])


def shown(value: Any) -> str:
    return "-" if value is MISSING else typed(value)
