# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What happens around the steps of all models of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from anomalib.data import ImageBatch, PredictDataset
from anomalib.models import AnomalibModule
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_hgad.common.processes import gather_objects
from anomalib_hgad.data.batch import cuts_tiles
from anomalib_hgad.data.images import NamingPredictDataset
from anomalib_hgad.evaluation.predictions import PREDICTED_FILE, Prediction, predictions_of_batch, write_predictions


def _predict_loaders(trainer: Trainer) -> list[Any]:
    loaders = trainer.predict_dataloaders
    return loaders if isinstance(loaders, list) else [loaders]


class NamedImages(Callback):
    """Lets an image that cannot be predicted be named."""

    def on_predict_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Reach the dataset that anomalib has made of a folder; its loader takes no other one."""
        del pl_module
        for loader in _predict_loaders(trainer):
            dataset = getattr(loader, "dataset", None)
            if type(dataset) is PredictDataset:
                dataset.__class__ = NamingPredictDataset


class PredictedTable(Callback):
    """Writes what a prediction says of every image as a test does: ``predicted.csv``, in the place of an earlier one.

    Nothing of a batch is kept but the rows. A prediction that does not come to its end writes nothing, nor does one of
    the tiles of anomalib's tiled ensemble, whose scores are not those of the images.
    """

    def __init__(self) -> None:
        self._rows: list[Prediction] = []

    def on_predict_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Forget the rows of a prediction that was broken off."""
        del trainer, pl_module
        self._rows = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: AnomalibModule,
        outputs: ImageBatch,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch, which the post-processor has seen: it is a callback before this one."""
        del trainer, pl_module, batch, batch_idx, dataloader_idx
        self._rows += predictions_of_batch(outputs)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Write the table, of several processes the first one alone, with the rows of all."""
        del pl_module
        # At the end, and not batch by batch: Lightning repeats no image here, so processes may have fewer batches.
        rows = [row for of_process in gather_objects(self._rows) for row in of_process]
        self._rows = []
        tiles = any(cuts_tiles(getattr(loader, "collate_fn", None)) for loader in _predict_loaders(trainer))
        if trainer.is_global_zero and not tiles:
            write_predictions(rows, Path(trainer.default_root_dir), PREDICTED_FILE)


class RandomState(Callback):
    """Keeps the random state in checkpoints: a resumed training sees the images in the order of an unbroken one."""

    def on_save_checkpoint(self, trainer: Trainer, pl_module: AnomalibModule, checkpoint: dict[str, Any]) -> None:
        """Save the state that the order of the next epoch's images comes from."""
        del trainer, pl_module
        checkpoint["hgad_random_state"] = torch.get_rng_state()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: AnomalibModule, checkpoint: dict[str, Any]) -> None:
        """Go on with the state of the checkpoint, before Lightning draws the order of the first images."""
        del pl_module
        if trainer.state.fn == TrainerFn.FITTING:
            torch.set_rng_state(checkpoint["hgad_random_state"].cpu())
