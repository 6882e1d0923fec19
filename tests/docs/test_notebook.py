"""The worked notebook runs from top to bottom, and shows what it says it shows."""

from __future__ import annotations

from pathlib import Path

import nbformat
import polars as pl
import pytest
from nbclient import NotebookClient

import pythiageo

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"


def test_it_is_stored_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


@pytest.mark.slow
def test_it_runs_and_its_training_learns(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    texts = [str(output.get("text", output.get("data", {}).get("text/plain", ""))) for output in outputs]
    assert any("no task 'COPYY' (did you mean 'COPY'?)" in text for text in texts)
    assert any("application/vnd.plotly.v1+json" in output.get("data", {}) for output in outputs)
    run = pythiageo.open_run(tmp_path / "outputs" / "copying")
    assert run.manifest["status"] == "complete"
    assert set(run.observations["status"]) == {"ok"}
    assert run.observations["step"].max() == 150
    score = run.observations.filter((pl.col("measure") == "log_prob") & (pl.col("level") == "L1")).sort("step")["value"]
    assert score[-1] > score[0] + 1
