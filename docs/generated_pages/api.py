"""The public names of the package, for Sphinx to document from their docstrings."""

from __future__ import annotations

import inspect

import bnstudy

INTRODUCTION = """# Python API

`import bnstudy` gives all of these; each is imported on first use."""


def page() -> str:
    public = {name: getattr(bnstudy, name) for name in bnstudy.__all__ if name != "__version__"}
    functions = [name for name, thing in public.items() if inspect.isroutine(inspect.unwrap(thing))]
    classes = [name for name, thing in public.items() if inspect.isclass(thing)]
    parts = [INTRODUCTION, "## Functions"]
    parts += [directive("autofunction", f"bnstudy.{name}") for name in functions]
    parts += ["## Classes"]
    parts += [directive("autoclass", f"bnstudy.{name}", "   :members:") for name in classes]
    return "\n\n".join(parts)


def directive(kind: str, name: str, *options: str) -> str:
    return "\n".join(["```{eval-rst}", f".. {kind}:: {name}", *options, "```"])
