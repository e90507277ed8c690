# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The figure of the models, the tables of the results and the table of the README have the same values."""

from __future__ import annotations

import re

import pytest

from tests.benchmarks.models_figure import MODELS, draw, values
from tests.helpers.paths import ROOT

NAMES = {"**Hgad**, the default": "Hgad, default", "Patchcore, 1 % of the patches": "Patchcore"}
RESULTS = (ROOT / "docs/results.md").read_text()


def rows(text: str, heading: str) -> dict[str, list[float]]:
    """Values of the first table after a heading by model, without deviations."""
    table = re.search(r"(^\|.*\n)+", text[text.index(heading) :], flags=re.MULTILINE)[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table]
    return {name: [float(value.partition(" ")[0]) for value in numbers] for name, *numbers in cells}


MEANS = rows(RESULTS, "Mean over the five classes:")
POOLED = rows(RESULTS, "All images pooled, as one")


@pytest.mark.parametrize("model", MODELS)
def test_figure_has_the_values_of_the_tables(model: str) -> None:
    (row,) = {name for name in MEANS if NAMES.get(name, name) == model}
    for metric, column in (("image_AUROC", 0), ("pixel_AUROC", 3)):
        assert values(model, metric) == pytest.approx((MEANS[row][column], POOLED[row][column]), abs=0.0501)


def test_readme_has_the_values_of_the_tables() -> None:
    table = rows((ROOT / "README.md").read_text(), "## Results")
    assert len(table) == 5
    for name, of_readme in table.items():
        row = next(known for known in MEANS if name.startswith(known))
        assert of_readme == [MEANS[row][0], POOLED[row][0], MEANS[row][3], POOLED[row][3]]


def test_figure_has_a_line_for_each_model_and_metric() -> None:
    of_images, of_pixels = draw().axes
    assert len(of_images.lines) == len(of_pixels.lines) == len(MODELS)
    assert {label.get_text() for label in of_images.get_yticklabels()} == set(MODELS)
