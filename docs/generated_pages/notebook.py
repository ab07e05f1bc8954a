"""The notebook as a page: its texts and its code, without running it."""

from __future__ import annotations

import json
from pathlib import Path

from generated_pages.markdown import join

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "first_sweep.ipynb"


def page() -> str:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    parts = [as_markdown(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    return join([*parts, f"Download [the notebook](../notebooks/{NOTEBOOK.name})."])


def as_markdown(kind: str, text: str) -> str:
    return f"```python\n{text}\n```" if kind == "code" else text
