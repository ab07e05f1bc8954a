"""The notebook of the docs runs from the top to the end."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "notebooks" / "first_sweep.ipynb"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the packages that talk to the kernel
def test_the_notebook_trains_a_sweep_and_shows_its_report(tmp_path, monkeypatch):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    said = "".join(output["text"] for output in outputs if output.output_type == "stream" and output.name == "stderr")
    assert "steps: " in said
    assert "Warning" not in said
    data = [output["data"] for output in outputs if "data" in output]
    kinds = {kind for of_output in data for kind in of_output}
    assert {"text/html", "image/png", "image/svg+xml"} <= kinds
    (shown,) = [of_output for of_output in data if "The whole report" in of_output.get("text/html", "")]
    assert "SUPPORTED" in shown["text/html"]
    assert "Report: file://" in shown["text/plain"]
    assert (tmp_path / "results/reports/all/index.html").exists()
