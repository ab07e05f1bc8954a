"""bnstudy: ask a question about normalization on the command line, get an answer with error bars."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # these are modules that can be called, see calling.py
    from bnstudy.api.reporting import report as report
    from bnstudy.api.training import run as run
    from bnstudy.api.training import sweep as sweep

__version__ = "0.1.0"

MODULES = {
    "ConfigError": "bnstudy.validation",
    "PER_RUN": "bnstudy.validation",
    "NormSpec": "bnstudy.norms.base",
    "ModelSpec": "bnstudy.models.base",
    "InitSpec": "bnstudy.inits",
    "LossSpec": "bnstudy.losses",
    "OptimSpec": "bnstudy.optim",
    "ScheduleSpec": "bnstudy.optim",
    "DataSpec": "bnstudy.data.base",
    "CachedData": "bnstudy.data.cache",
    "ProbeSpec": "bnstudy.probes.base",
    "Snapshot": "bnstudy.probes.base",
    "BaseLogger": "bnstudy.loggers.base",
    "RunSpec": "bnstudy.run",
    "measure": "bnstudy.api.measure",
    "load_runs": "bnstudy.store.loading",
    "load_metrics": "bnstudy.store.loading",
    "load_timing": "bnstudy.store.loading",
    "load_test_correct": "bnstudy.store.loading",
    "RunsFailed": "bnstudy.sweep.results",
}
"""The public names, by the modules that define them."""

CALLABLE = ("run", "sweep", "report")
"""The submodules that are functions as well."""

__all__ = ["__version__", *CALLABLE, *MODULES]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `bnstudy --help` imports neither torch nor pandas."""
    if name in CALLABLE:
        return import_module(f"bnstudy.{name}")
    if name not in MODULES:
        raise AttributeError(f"module 'bnstudy' has no attribute {name!r}")
    return getattr(import_module(MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
