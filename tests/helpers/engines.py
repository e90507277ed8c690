# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Anomalib's engine, light and quiet, and a training by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anomalib.data import AnomalibDataModule
from anomalib.engine import Engine
from lightning.pytorch import Callback

from anomalib_hgad import Hgad
from tests.helpers.light import LIGHT

QUIET: dict[str, Any] = {
    "max_epochs": 1,
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def engine(folder: Path, *callbacks: Callback, **settings: Any) -> Engine:
    """An engine that trains for an epoch on the CPU and prints nothing.

    Args:
        folder: Where its results go.
        *callbacks: Beside those of anomalib.
        **settings: Of anomalib's engine, in place of :data:`QUIET` and beside it.
    """
    return Engine(**QUIET | settings, callbacks=list(callbacks), default_root_dir=folder)


def all_figures(run: Engine) -> dict[str, float]:
    """Figures of the last test of an engine, those of the classes too: the test itself returns a few."""
    return {name: float(value) for name, value in run.trainer.callback_metrics.items()}


def train_and_test(datamodule: AnomalibDataModule, folder: Path, **settings: Any) -> Path:
    """Train and test a light Hgad without pictures.

    Args:
        datamodule: What it is trained and tested on.
        folder: Where its results go.
        **settings: Of the model.

    Returns:
        Folder of the run.
    """
    run = engine(folder)
    run.train(Hgad(**LIGHT | {"seed": 0, "visualizer": False} | settings), datamodule=datamodule)
    return Path(run.trainer.default_root_dir)
