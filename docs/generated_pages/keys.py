"""The configuration: its keys and the options of its groups, from the classes that check them and from conf/."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bnstudy.run import EarlyStopping, Evaluation, RunSpec
from bnstudy.store.files import conf_dir
from bnstudy.sweep.settings import Launcher, Settings
from bnstudy.validation import Spec, import_object, show
from bnstudy.when import When
from generated_pages.markdown import code, join, own_doc, prose, split_doc, table

GROUPS = {
    "model": "Networks",
    "norm": "Norms",
    "init": "Initial weights",
    "data": "Data",
    "optim": "Optimizers",
    "schedule": "Schedules of the learning rate",
    "loss": "Losses",
    "logger": "Loggers",
}
TYPES = {int: "whole number", float: "number", bool: "true, false", str: "text", dict: "mapping", Mapping: "mapping"}
HEADER = ("key", "values", "default", "meaning")


def page_of_keys() -> str:
    """The keys of a run, of its training, and of the launcher."""
    config, comments = compose_config(), comments_of(conf_dir() / "config.yaml")
    run = [f.name for f in fields(RunSpec) if f.name in config and f.name not in (*GROUPS, "probe")]
    nodes = {"evaluation": Evaluation, "early_stopping": EarlyStopping}
    parts = [
        "# Configuration keys",
        "`bnstudy --cfg job` prints them with their values, and `key=value` sets one. [Options](options.md) has the "
        "keys of networks, norms, data and the rest. `null` stands for no value.",
        "## What a run is",
        "These keys, and those of the [options](options.md), determine a run's results and its `run_id`.",
        table(HEADER, rows_of(RunSpec, {n: config[n] for n in run if n not in nodes}, "", comments)),
        *[table(HEADER, rows_of(cls, config[name], f"{name}.")) for name, cls in nodes.items()],
        "## How and where runs are trained",
        "These keys change no run's identity.",
        table(HEADER, rows_of(Settings, {f.name: config[f.name] for f in fields(Settings)}, "", comments)),
        "## Where the work goes",
        table(
            HEADER,
            rows_of(Launcher, {f.name: getattr(Launcher(), f.name) for f in fields(Launcher)}, "hydra.launcher."),
        ),
    ]
    return join(parts)


def page_of_options() -> str:
    """Each option of each group with its keys, and the presets of probes."""
    parts = ["# Options", "`group=option` chooses one of these, such as `norm=group`; `key=value` changes a key of it."]
    for group, title in GROUPS.items():
        parts += [f"## {title}"]
        for path in sorted((conf_dir() / group).glob("*.yaml")):
            parts += option(group, path)
    return join([*parts, *presets()])


def option(group: str, path: Path) -> Iterator[str]:
    node = compose_config(f"{group}={path.stem}")[group]
    yield f"### `{group}={path.stem}`"
    if "_target_" not in node:
        yield path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()
        return
    cls = import_object(node["_target_"], group)
    text, _ = split_doc(own_doc(cls), [f.name for f in fields(cls)])
    yield prose(text)
    values = {name: value for name, value in node.items() if not isinstance(value, dict) or "_target_" not in value}
    yield table(HEADER, rows_of(cls, values, f"{group}.", comments_of(path)))


def presets() -> Iterator[str]:
    """Which probes each preset has, and how often each measures."""
    yield "## Presets of probes"
    yield "What they measure is in [Metrics](metrics.md). `probe.NAME=null` leaves one out."
    rows = []
    for path in sorted((conf_dir() / "probe").glob("*.yaml")):
        for name, node in (compose_config(f"probe={path.stem}")["probe"] or {}).items():
            times = code(show_node(node["when"])) if node.get("when") else ""
            probe = node["_target_"].rpartition(".")[2]
            rows.append((code(path.stem), code(f"probe.{name}"), f"[{probe}](metrics.md#{probe.lower()})", times))
    yield table(("preset", "key", "probe", "`when`"), rows)
    yield "## When something is measured"
    yield "A `when` is one of these classes of `bnstudy.when`; the last step is always measured."
    yield table(
        ("`_target_: bnstudy.when.`", "keys", "measures"),
        [
            (code(cls.__name__), ", ".join(code(f"{f.name}={show(f.default)}") for f in fields(cls)), one_line(cls))
            for cls in When.__subclasses__()
        ],
    )


def one_line(cls: type) -> str:
    return " ".join(own_doc(cls).split())


@cache
def compose_config(*overrides: str) -> Any:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return OmegaConf.to_container(compose("config", [*overrides]))


def comments_of(path: Path) -> dict[str, str]:
    """The comments behind the keys of a YAML file, by key."""
    lines = [line.partition(" # ") for line in path.read_text(encoding="utf-8").splitlines()]
    return {key.split(":")[0]: comment for key, _, comment in lines if comment and not key.startswith(" ")}


def rows_of(
    cls: type[Spec], values: Mapping[str, Any], prefix: str, comments: Mapping[str, str] | None = None
) -> Iterator[tuple[str, str, str, str]]:
    """A row for each key of a class: its values, default and meaning, from docstrings and comments."""
    hints, said, allowed = get_type_hints(cls), meanings(cls), requirements(cls)
    for name, value in values.items():
        if name not in hints:
            continue
        comment = (comments or {}).get(name, "")
        is_list_of_values = not said.get(name) and get_origin(hints[name]) is Literal and ": " not in comment
        meaning = said.get(name) or ("" if is_list_of_values else comment)
        kinds = in_words(values_of(hints[name]), allowed.get(name, []))
        yield code(prefix + name), kinds, code(show_node(value)), meaning


def in_words(kinds: str, required: Sequence[str]) -> str:
    """The values of a key: what its annotation allows, without what its requirements say anyway."""
    if not required:
        return kinds
    text = ", ".join(required)
    kind, _, null = kinds.partition(", null")
    if not text.startswith(("a ", "an ", "the ", "auto", "none", "from", "shares", "fractions", "numbers")):
        text = f"{kind}, {text}"
    return text if "null" in text or (not null and ", null" not in kinds) else f"{text}, or null"


def show_node(value: Any) -> str:
    """A value, or a node as its class and fields."""
    if not isinstance(value, Mapping) or "_target_" not in value:
        return show(value)
    fields = [f"{key}={show(item)}" for key, item in value.items() if key != "_target_"]
    return " ".join([value["_target_"].rpartition(".")[2], *fields])


def meanings(cls: type[Spec]) -> dict[str, str]:
    """What the docstrings of a class and its bases say of its fields."""
    found: dict[str, str] = {}
    for base in (c for c in reversed(cls.__mro__) if issubclass(c, Spec)):
        found |= split_doc(own_doc(base), [f.name for f in fields(base)])[1]
    return found


def values_of(hint: Any) -> str:
    """The values that an annotation allows, in words."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys([values_of(h) for h in args if h is not NoneType])) + (
            ", null" if NoneType in args else ""
        )
    if origin is Literal:
        return ", ".join(code(show(value)) for value in args)
    if origin in (tuple, list):
        return f"list of {values_of(args[0])}s"
    kind = origin or hint
    if isinstance(kind, type) and issubclass(kind, Spec):
        return code(kind.__name__) if issubclass(kind, When) else code(f"{{{', '.join(f.name for f in fields(kind))}}}")
    return TYPES.get(kind, "any value")


def requirements(cls: type[Spec]) -> dict[str, list[str]]:
    """What `check` requires of each field, in the words of its messages: `self.require(..., "name", "at least 1")`."""
    found: dict[str, list[str]] = {}
    for base in (c for c in cls.__mro__ if issubclass(c, Spec) and "check" in vars(c)):
        method, own = vars(base)["check"], dict[str, list[str]]()
        for call in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(method)))):
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "require" and len(call.args) == 3:
                name, words = (text_of(node, method.__globals__) for node in call.args[1:])
                if name and words:
                    own.setdefault(name, []).append(words)
        found = own | found  # a class is stricter than its bases
    return found


def text_of(node: ast.expr, names: dict[str, Any]) -> str | None:
    """The text that an expression of constants stands for."""
    if "MAX_WORKERS" in ast.unparse(node):  # depends on the machine that builds the site
        return None
    try:
        value = eval(compile(ast.Expression(node), "check", "eval"), names, {})
    except (NameError, AttributeError):  # it depends on the value itself
        return None
    return value if isinstance(value, str) else None
