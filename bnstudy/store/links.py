"""Symbolic links inside a store: nothing is written or deleted through them.

A store may come from somebody else, and a link in it may lead anywhere. The results_dir itself may be a link.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bnstudy.validation import ConfigError

FOLDERS = ("runs", "studies", "reports", "workers", "cache", "slurm", "multirun", "trash")
"""The folders of a store."""


def refuse_links(results_dir: Path, folders: Iterable[Path]) -> None:
    """Check folders below results_dir, which need not exist, and those above them.

    Raises:
        ConfigError: one is a symbolic link.
    """
    checked = {results_dir}
    for folder in folders:
        for path in (folder, *folder.parents):
            if path in checked:
                break
            checked.add(path)
            if path.is_symlink():
                raise ConfigError(
                    f"{path} is a symbolic link, which may lead out of the store: nothing is written through it. "
                    "Replace it with a folder, or name its target with results_dir=FOLDER."
                )
