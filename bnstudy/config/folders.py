"""The user's folders of configs, checked before Hydra reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from bnstudy.validation import ConfigError

if TYPE_CHECKING:
    import yaml

MAX_NODES = 100_000
"""Values of a YAML file, with each alias written out."""


def check_folder(key: str, folder: str) -> None:
    """Refuse a folder that is not there, or with a file that Hydra could not read or could not hold in memory.

    key: names the folder in the message, such as `claims`.
    """
    path = os.path.expanduser(folder)
    if not os.path.isdir(path):
        raise ConfigError(f"{key}={folder} is not allowed: there is no such folder.")
    for file in config_files(Path(path)):
        check_file(file)


def config_files(folder: Path) -> Iterator[Path]:
    """The YAML files that Hydra may read: in the folder, in its groups, and in groups of groups."""
    found = chain.from_iterable(folder.glob(pattern) for pattern in ("*.yaml", "*/*.yaml", "*/*/*.yaml"))
    return (path for path in found if not path.name.startswith("."))  # as an editor's lock


def check_file(path: Path) -> None:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from None
    if "&" not in text or "*" not in text:
        return
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError:  # Hydra says so, if it reads the file
        return
    if root is not None and count_nodes(root, {}) > MAX_NODES:
        raise ConfigError(f"{path} is not allowed: its aliases stand for more than {MAX_NODES} values.")


def count_nodes(node: yaml.Node, counts: dict[yaml.Node, float]) -> float:
    """The number of nodes below and at `node`, with each alias written out; infinite if it holds itself."""
    if node not in counts:
        counts[node] = float("inf")  # while its own nodes are counted
        inner = chain.from_iterable(v if isinstance(v, tuple) else (v,) for v in node.value)
        counts[node] = 1 + (0 if isinstance(node.value, str) else sum(count_nodes(n, counts) for n in inner))
    return counts[node]
