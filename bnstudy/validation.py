"""Frozen dataclasses that validate themselves: the base of every node of the configuration."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import math
import os
import pickle
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import Field, dataclass, fields
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

NAME = re.compile(r"[\w-][\w.-]*")
"""The name of a study or a scale, which is also the name of a folder."""


class ConfigError(ValueError):
    """A user's mistake in one sentence: the key, the value, what is allowed. Leads to exit status 2."""


def machine_bytes() -> int:
    """The memory of this machine or container."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else ""
    return min(physical, int(text)) if text.isdigit() else physical


def gigabytes(count: int) -> str:
    """`"24 GB"`."""
    rounded = float(f"{count / 1e9:.2g}")
    return f"{rounded:,.0f} GB" if rounded >= 10 else f"{rounded:g} GB"


def nearest(word: object, words: Iterable[object]) -> str:
    """`"; did you mean X?"` with the name X among `words` most similar to `word`; "" if none is similar."""
    match = closest(str(word), (w for w in words if isinstance(w, str)))
    return f"; did you mean {match}?" if match else ""


def closest(word: str, words: Iterable[str]) -> str | None:
    found = difflib.get_close_matches(word, sorted(words), n=1, cutoff=0.6)
    return found[0] if found else None


def import_object(dotted: str, key: str) -> Any:
    """Import the object with a dotted name, also from modules in the working directory.

    key: begins the error message, such as `norm._target_=mine.Norm`.

    Raises:
        ConfigError: it cannot be imported, or only here: worker processes do not execute the script that is `__main__`.
    """
    module, _, name = dotted.rpartition(".")
    if module == "__main__":
        raise ConfigError(
            f"{key} is not allowed: other processes cannot import {name} from a script or a notebook. Put it into a "
            f"module beside it, such as mine.py, and write mine.{name}."
        )
    try:
        with modules_beside(module):
            return getattr(importlib.import_module(module), name)
    except Exception as error:  # importing runs code of the user's, which can fail in any way
        where = f"; looked for in {os.getcwd()} and the installed packages" if isinstance(error, ImportError) else ""
        raise ConfigError(f"{key} cannot be imported: {error}{where}.") from error


@contextmanager
def modules_beside(module: str) -> Iterator[None]:
    """Let `module` be imported from the working directory, unless it is installed.

    At all other times the working directory is not on the path: packages try to import others that may be missing, and
    would run a file of that name there.
    """
    top = module.partition(".")[0]
    if not top or top in sys.modules or importlib.util.find_spec(top) or (here := os.getcwd()) in sys.path:
        yield
        return
    sys.path.append(here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with suppress(ValueError):  # the module may have changed the path
            sys.path.remove(here)


class SpecUnpickler(pickle.Unpickler):
    """Reads specs that another process of the same command pickled. Their classes may be the user's."""

    def find_class(self, module: str, name: str) -> Any:
        with modules_beside(module):
            return super().find_class(module, name)


def show(value: object) -> str:
    """A value as it is typed on the command line."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, list | tuple):
        return f"[{','.join(map(show, value))}]"
    return f"{value:g}" if isinstance(value, float) else printable(str(value), keep="")


def printable(text: str, keep: str = "\n") -> str:
    """The text with its control characters as escapes: a terminal would obey them, and an SVG must not hold them."""
    if text.isprintable():
        return text
    return _UNUSUAL.sub(lambda match: _escape(match[0], keep), text)


_UNUSUAL = re.compile(r"[^ -~]")
"""Most characters of a page are usual, and need no look."""


def _escape(character: str, keep: str) -> str:
    is_shown = character in keep or unicodedata.category(character) not in _CONTROLS
    return character if is_shown else ascii(character)[1:-1]


_CONTROLS = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of control characters, changes of direction, half characters, and line separators."""


@dataclass(frozen=True)
class Spec:
    """A node of the configuration. Each value is checked against its annotation, then all by `check`.

    `group` is the config key of the node; error messages start with it.

    Raises:
        ConfigError: a value has the wrong type, is not one of the allowed ones, or `check` refuses it.
    """

    group: ClassVar[str] = ""
    has_target: ClassVar[bool] = True
    """Whether the node names its class by `_target_`."""

    def __post_init__(self) -> None:
        for name, hint in _type_hints(type(self)).items():  # type: ignore[arg-type]  # mypy wants __hash__ in the class
            object.__setattr__(self, name, _convert(self.key(name), getattr(self, name), hint))
        for name, value in self.canonical().items():
            object.__setattr__(self, name, value)
        self.check()

    def canonical(self) -> Mapping[str, object]:
        """Field values that replace the given ones, so that specs with the same meaning are equal."""
        return {}

    def check(self) -> None:
        """Raise ConfigError for values that the annotations allow but the meaning does not."""

    def key(self, name: str) -> str:
        """The config key of a field."""
        return f"{self.group}.{name}" if self.group else name

    def refuse(self, name: str, allowed: str) -> ConfigError:
        """The error for a value of field `name` that is not `allowed`, such as "at least 1"."""
        return ConfigError(f"{self.key(name)}={show(getattr(self, name))} is not allowed: it must be {allowed}.")

    def require(self, condition: bool, name: str, allowed: str) -> None:
        """Raise the error of `refuse` unless `condition` holds."""
        if not condition:
            raise self.refuse(name, allowed)

    @property
    def label(self) -> str:
        """The name in figures and tables."""
        return type(self).__name__


@cache
def _type_hints(cls: type[Spec]) -> dict[str, Any]:
    """The annotations of the fields in order. Cached, since evaluating them dominates the cost of a spec."""
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls)}


_TYPE_NAMES = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text", tuple: "a list"}
_TYPE_NAMES |= {list: "a list", dict: "a mapping", Mapping: "a mapping"}


TO_SWEEP = "To sweep values, add -m and list them without brackets."


def _convert(key: str, value: Any, hint: Any) -> Any:
    """`value` as an instance of `hint`. Only lossless conversions are made: 1 to 1.0, a list to a tuple, 1 to "1"."""
    origin, args = get_origin(hint), get_args(hint)
    several = f" {TO_SWEEP}" if isinstance(value, list | tuple) else ""
    if origin in (Union, UnionType):
        if value is None and NoneType in args:
            return None
        first, *others = (hint for hint in args if hint is not NoneType)
        for hint in (first, *others):
            with suppress(ConfigError):
                return _convert(key, value, hint)
        return _convert(key, value, first)  # raises the error of the first alternative
    if origin is Literal:
        if value in args:
            return value
        allowed = ", ".join(map(show, args)) + (f".{several}" if several else nearest(value, args) or ".")
        raise ConfigError(f"{key}={show(value)} is not allowed: it must be one of {allowed}")
    if origin in (tuple, list) and isinstance(value, list | tuple):
        return origin(_convert(key, v, args[0]) for v in value)
    kind = origin or hint
    if _is_plain_node(kind) and isinstance(value, Mapping):
        return _from_mapping(key, value, kind)
    if kind in (int, float) and type(value) is int and abs(value) >= 2**63:
        raise ConfigError(f"{key}={show(value)} is not allowed: it must be below 2^63.")
    is_infinite = isinstance(value, float) and not math.isfinite(value)
    if kind is Any or (isinstance(value, kind) and isinstance(value, bool) == (kind is bool) and not is_infinite):
        return value
    if kind is float and type(value) is int:
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is str and type(value) is int:
        return str(value)
    given = type(value).__name__ if isinstance(value, Spec) else show(value)
    named = _TYPE_NAMES.get(kind, f"a {getattr(kind, '__name__', kind)}")
    expected = _example(kind) if _is_plain_node(kind) else named
    raise ConfigError(f"{key}={given} is not allowed: it must be {expected}.{several}")


def _from_mapping(key: str, value: Mapping[str, Any], kind: type[Spec]) -> Spec:
    """The spec that a node without `_target_` describes."""
    names = [f.name for f in fields(kind)]
    if sorted(value) != sorted(names):
        given = ", ".join(f"{name}: {show(of)}" for name, of in value.items())
        raise ConfigError(f"{key}={{{given}}} is not allowed: it must be {_example(kind)}.")
    return kind(**value)


def _is_plain_node(kind: Any) -> bool:
    """Whether values are of a spec whose node in a config has no `_target_`."""
    return isinstance(kind, type) and issubclass(kind, Spec) and not kind.has_target


def _example(kind: type[Spec]) -> str:
    return f"{{{', '.join(f'{f.name}: ...' for f in fields(kind))}}}"


BESIDE = {"identity": False}
"""Metadata of a field that is no part of a run's identity: it says where or how the run is done."""

PER_RUN = {"per_run": True}
"""Metadata of a number that may differ among the runs of a stack, if it is 0 (or null) for all of them or for none."""


ADDED = {"added": True}
"""Metadata of a field that the first stores lack: null leaves it out of the identity, so their runs keep their ids."""


def stackable_numbers(spec: Spec) -> dict[str, float]:
    """The values of the fields marked PER_RUN that are neither 0 nor null: runs of a stack may differ in them."""
    marked = [f.name for f in fields(spec) if f.metadata.get("per_run")]
    return {name: getattr(spec, name) for name in marked if getattr(spec, name)}


def to_dict(spec: Any) -> Any:
    """A spec as plain data, with every default, and with the class of each node as `_target_`."""
    if isinstance(spec, Spec):
        inner = {f.name: to_dict(getattr(spec, f.name)) for f in fields(spec) if is_identity(spec, f)}
        return {"_target_": f"{type(spec).__module__}.{type(spec).__qualname__}", **inner} if spec.has_target else inner
    if isinstance(spec, Mapping):
        return {str(k): to_dict(v) for k, v in sorted(spec.items())}
    if isinstance(spec, tuple):
        return [to_dict(v) for v in spec]
    return spec


def is_identity(spec: Spec, field: Field[Any]) -> bool:
    """Whether the field's value is part of a run's identity."""
    absent = field.metadata.get("added", False) and getattr(spec, field.name) is None
    return field.metadata.get("identity", True) and not absent
