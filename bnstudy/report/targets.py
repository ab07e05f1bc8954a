"""Figures and reproductions by name: each is a YAML file whose `_target_` names a class or function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from bnstudy.store.files import conf_dir
from bnstudy.validation import ConfigError, import_object


def load_targets(
    group: str, config_dirs: Sequence[Path] = (), only: str | None = None
) -> dict[str, Callable[..., Any]]:
    """The objects that the files `group`/NAME.yaml of conf/ and of the user's folders name, in their `order`.

    The order is 1000 by default. A file of the user's replaces one of the same name in conf/. What a store names is
    never imported.

    Args:
        only: the one name to load, if there is a file for it.

    Raises:
        ConfigError: a file has no `_target_`, its `order` is not a number, or the object cannot be imported.
    """
    files = {path.stem: path for folder in (conf_dir(), *config_dirs) for path in (folder / group).glob("*.yaml")}
    nodes = {name: _read(path) for name, path in files.items() if only is None or name == only}
    targets = {name: str(nodes[name]["_target_"]) for name in sorted(nodes, key=lambda n: (nodes[n]["order"], n))}
    return {name: import_object(target, f"{group}/{name}._target_={target}") for name, target in targets.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"In {path}: {error}") from error
    if not isinstance(node, dict) or "_target_" not in node:
        raise ConfigError(f"{path} has no _target_: it must name a class or function, such as my_package.MyFigure.")
    node = {"order": 1000, **node}
    if not isinstance(node["order"], int | float):
        raise ConfigError(f"In {path}: order={node['order']} is not allowed: it must be a number.")
    return node
