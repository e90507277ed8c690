# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The figures of docs/leaderboard.md are those that its command has stored."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from tests.helpers.paths import ROOT

PAGE = (ROOT / "docs/leaderboard.md").read_text()
STORED = json.loads((ROOT / "docs/runs/leaderboard.json").read_text())
CONFIG = yaml.safe_load((ROOT / "configs/benchmark/leaderboard.yaml").read_text())
METRICS = ["image_AUROC", "image_F1Max", "pixel_AUROC", "pixel_AUPRO"]
"""Columns of the page's tables, each of which has all of them once without and once with calibration."""

MISSING = "–"
"""Cell of a metric that a model has no values of: some have no anomaly maps."""


def rows(title: str) -> dict[str, list[str]]:
    """Rows of the table under a title: cells by the name of the model."""
    lines = PAGE.split(f"\n{title}\n")[1].lstrip("\n").splitlines()
    table = lines[2 : next((number for number, line in enumerate(lines) if not line.startswith("|")), len(lines))]
    cells = [[cell.strip().replace("*", "") for cell in line.strip("|").split("|")] for line in table]
    return {name: values for name, *values in cells}


def stored(model: str, of_class: str) -> list[str]:
    """Cells of a model as a table has them."""
    (figures,) = (row for row in STORED["figures"] if row["model"] == model and row["class"] == of_class)
    return [MISSING if figures[name] is None else f"{100 * figures[name]:.1f}" for name in METRICS]


@pytest.mark.parametrize("run", STORED["runs"], ids=lambda run: run["name"])
def test_runs_are_those_of_the_config(run: dict[str, Any]) -> None:
    row = CONFIG["models"][run["name"]]
    assert run["choice"] == {"calibration": False} | row
    assert run["data"] == CONFIG["data"]
    assert [run[key] for key in ("max_epochs", "image_size")] == [CONFIG[key] for key in ("max_epochs", "image_size")]
    assert [run["seed"]] == CONFIG["seeds"]


def test_every_row_of_the_config_has_its_run() -> None:
    assert [run["name"] for run in STORED["runs"]] == list(CONFIG["models"])


def test_means_of_the_classes() -> None:
    assert rows("Mean over the classes:") == {name: stored(name, "mean") for name in CONFIG["models"]}


def test_means_do_not_change_by_calibration() -> None:
    """Within a class it is an increasing map; maps are rounded in float32."""
    for name, row in CONFIG["models"].items():
        if row.get("calibration"):
            (before,), (after,) = (
                [row for row in STORED["figures"] if row["model"] == model and row["class"] == "mean"]
                for model in (name, f"{name}, calibrated")
            )
            known = [key for key in METRICS if before[key] is not None]
            assert [after[key] for key in known] == pytest.approx([before[key] for key in known], abs=2e-4)


def test_all_images_pooled() -> None:
    for name, cells in rows("All images pooled:").items():
        before = stored(name, "pooled")
        calibrated = CONFIG["models"][name].get("calibration", False)
        after = stored(f"{name}, calibrated", "pooled") if calibrated else before
        pairs = zip(before, after, strict=True)
        expected = [f"{one} → {two}" if calibrated and one != MISSING else one for one, two in pairs]
        assert cells == expected
    assert list(rows("All images pooled:")) == list(CONFIG["models"])


def test_nothing_stored_is_of_one_machine() -> None:
    assert not re.search(r'"/\w', json.dumps(STORED))
