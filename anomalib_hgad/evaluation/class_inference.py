# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Infers the class of images with a fitted Hgad, for a model that knows no classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import anomalib.models
import torch
from anomalib.data import ImageBatch
from lightning.pytorch import Callback, LightningModule, Trainer

from anomalib_hgad.data.batch import ClassImageBatch


class ClassInference(Callback):
    """Infers the class of the images of a batch; must be a callback before the pre-processing.

    The classifier has its own pre-processing. It is not part of the model that the post-processor belongs to.

    Args:
        checkpoint: Checkpoint of the classifier.

    Attributes:
        names: Classes of the images of the current batch.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        self.checkpoint = checkpoint
        self.names: list[str] = []
        self._model: Any = None

    @property
    def class_names(self) -> list[str]:
        """Names of all classes of the classifier."""
        return list(self._model.class_names)

    def load(self) -> None:
        """Load the classifier, once."""
        if self._model is None:
            # By its name in anomalib: metrics do not import models.
            self._model = anomalib.models.Hgad.load_from_checkpoint(self.checkpoint, map_location="cpu").eval()

    @torch.no_grad()
    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: ImageBatch,
        *args: Any,  # noqa: ANN401
    ) -> None:
        """Infer the classes of a batch."""
        del trainer, pl_module, args
        images = cast("torch.Tensor", batch.image)
        model = self._model.to(images.device)
        seen = ClassImageBatch(image=model.pre_processor(images))
        self.names = model.predict_step(seen).scored_class_name

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: ImageBatch,
        *args: Any,  # noqa: ANN401
    ) -> None:
        """Infer the classes of a batch, as in a test."""
        self.on_test_batch_start(trainer, pl_module, batch, *args)
