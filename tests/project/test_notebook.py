# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The notebook of the tutorial runs from beginning to end, and shows what its text says."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.helpers.paths import ROOT

NOTEBOOK = ROOT / "docs/tutorials/own_products.ipynb"


def last_value(cell: nbformat.NotebookNode) -> str:
    """Text of what the last line of a cell gives."""
    return next(output["data"]["text/plain"] for output in cell.outputs if output.output_type == "execute_result")


@pytest.mark.slow
@pytest.mark.subprocess
def test_notebook_runs(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    classes, names, _, metrics, table, verdict, picture = [cell for cell in notebook.cells if cell.cell_type == "code"]
    products = ["blister", "chip", "fabric", "nut", "plank"]
    assert ast.literal_eval(last_value(classes)) == ast.literal_eval(last_value(names)) == products
    assert ast.literal_eval(last_value(metrics))["image_AUROC"] > 0.9
    assert all(name in last_value(table) for name in [*products, "mean", "pooled"])
    kind, named, score, label = ast.literal_eval(last_value(verdict))
    assert kind != "good"
    assert named == ["nut"]
    assert label
    assert score > 0.5
    assert any("image/png" in output.get("data", {}) for output in picture.outputs)


def test_notebook_is_stored_without_outputs() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert [cell for cell in cells if cell.get("outputs")] == []
