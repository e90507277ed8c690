# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A line with two products, one of which moves: tables of predictions, and the checkpoint that would have made them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from anomalib_hgad.evaluation.predictions import PREDICTED_FILE, write_predictions
from anomalib_hgad.models.checkpoint import describe
from anomalib_hgad.models.hgad.class_labels import CLASS_NAMES_KEY
from anomalib_hgad.models.hgad.novelty import NoveltyScale
from anomalib_hgad.report.monitor.scale import THRESHOLD
from tests.helpers.predictions import predicted

NAMES = ["bolt", "nut <b>&$x"]
GOOD = [predicted(name, novelty) for name in NAMES for novelty in (-0.2, 0.0, 0.2)]


def line_checkpoint() -> dict[str, Any]:
    """What the monitor reads of a checkpoint."""
    scale = NoveltyScale(len(NAMES))
    scale.location.copy_(torch.tensor([1.0, 2.0]))
    scale.margin.fill_(0.1)
    scale.deviation.fill_(0.025)
    scale.images.fill_(20)
    made: dict[str, Any] = {
        CLASS_NAMES_KEY: NAMES,
        "hyper_parameters": {"prior": "hierarchical"},
        "state_dict": {f"model.novelty.{name}": value for name, value in scale.state_dict().items()}
        | {THRESHOLD: torch.tensor(0.0)},
    }
    describe(made, {})
    return made


def write_line(folder: Path, checkpoint: dict[str, Any]) -> list[Path]:
    """Write a checkpoint, two good periods, and two in which the second product is less typical.

    Args:
        folder: Where.
        checkpoint: The checkpoint, ``model.ckpt``.

    Returns:
        Folders of the periods.
    """
    torch.save(checkpoint, folder / "model.ckpt")
    moved = [*GOOD[:3], *(replace(row, novelty=row.novelty + 0.9) for row in GOOD[3:])]
    periods = {"1": GOOD, "2": GOOD, "3": moved, "4": [*moved, predicted("unknown", 2.0)]}
    for name, rows in periods.items():
        write_predictions(rows, folder / "days" / name, PREDICTED_FILE)
    return [folder / "days" / name for name in periods]
