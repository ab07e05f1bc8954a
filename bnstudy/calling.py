"""Makes `bnstudy.run`, `bnstudy.sweep` and `bnstudy.report`, which are modules, functions as well.

An import of a submodule, such as `bnstudy.sweep.plan`, binds `bnstudy.sweep` to the module, whatever was bound before.
So a function of that name would come and go with the order of imports. The module itself stays: it gets a class with
`__call__`, which Python allows (https://docs.python.org/3/reference/datamodel.html#customizing-module-attribute-access).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

FUNCTIONS = {
    "bnstudy.run": "bnstudy.api.training",
    "bnstudy.sweep": "bnstudy.api.training",
    "bnstudy.report": "bnstudy.api.reporting",
}
"""The modules that are called, and where the functions are, which have their last names."""


class CallableModule(ModuleType):
    """A module that passes calls on to a function, which is imported then."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function of this name; its signature and documentation are those of `inspect.unwrap(module)`."""
        return self.__wrapped__(*args, **kwargs)

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(import_module(FUNCTIONS[self.__name__]), self.__name__.rpartition(".")[2])
        return found

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.__wrapped__)

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        """As a function it can be sent to another process."""
        return import_module, (self.__name__,)


def make_callable(name: str) -> None:
    """Called by a module itself, as its first statement, with its `__name__`."""
    sys.modules[name].__class__ = CallableModule
