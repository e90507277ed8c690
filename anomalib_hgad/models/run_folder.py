# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The folder that a run writes its files to."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from anomalib.utils.path import create_versioned_dir
from lightning.pytorch import Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.trainer.states import TrainerFn


def prepare_run_folder(trainer: Trainer) -> None:
    """Keep the files of a test or a prediction separate from those of the training.

    A test and a prediction write to the folder of the last training, which anomalib finds by the link ``latest``, and
    the command line would overwrite the training's settings with theirs. Without a training, ``latest`` would become a
    folder, which no later training can replace by its link.

    Args:
        trainer: The trainer, before its callbacks are set up.
    """
    stage = trainer.state.fn
    if stage is None or stage == TrainerFn.FITTING:
        return
    for callback in cast("Any", trainer).callbacks:
        if isinstance(callback, SaveConfigCallback):
            callback.config_filename = f"{stage.value}_config.yaml"
    folder = Path(trainer.default_root_dir)
    if folder.name == "latest" and not folder.exists() and trainer.is_global_zero:
        create_versioned_dir(folder.parent)
