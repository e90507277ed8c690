# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What happens around the steps of all models of this package."""

from __future__ import annotations

from typing import Any

import torch
from anomalib.data import PredictDataset
from anomalib.models import AnomalibModule
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_hgad.data.images import NamingPredictDataset


class NamedImages(Callback):
    """Lets an image that cannot be predicted be named."""

    def on_predict_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Reach the dataset that anomalib has made of a folder; its loader takes no other one."""
        del pl_module
        loaders = trainer.predict_dataloaders
        for loader in loaders if isinstance(loaders, list) else [loaders]:
            dataset = getattr(loader, "dataset", None)
            if type(dataset) is PredictDataset:
                dataset.__class__ = NamingPredictDataset


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
