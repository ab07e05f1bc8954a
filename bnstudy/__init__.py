"""bnstudy: ask a question about normalization on the command line, get an answer with error bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnstudy.store.loading import load_metrics, load_runs, load_timing

__version__ = "0.1.0"
__all__ = ["__version__", "load_metrics", "load_runs", "load_timing"]


def __getattr__(name: str) -> Any:
    """Import the loaders on first use: `bnstudy --help` needs no pandas."""
    if name in ("load_metrics", "load_runs", "load_timing"):
        from bnstudy.store import loading

        return getattr(loading, name)
    raise AttributeError(f"module 'bnstudy' has no attribute {name!r}")
