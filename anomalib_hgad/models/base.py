# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Shared base of this package's models: their interface to anomalib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from anomalib import LearningType
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Timer
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_hgad.data.images import check_finite
from anomalib_hgad.evaluation.evaluator import ClassEvaluator
from anomalib_hgad.evaluation.pictures import SeparatePictures, SomePictures
from anomalib_hgad.models.callbacks import (
    LastValidation,
    MeaningfulLabels,
    NamedImages,
    PredictedTable,
    QuietRun,
    RandomState,
    Termination,
    TrainedModel,
)
from anomalib_hgad.models.checkpoint_io import WholeCheckpoints
from anomalib_hgad.models.checkpointed import CheckpointedModel
from anomalib_hgad.models.component_checks import check_resized_first, check_sensitivities, warn_of_other_size
from anomalib_hgad.models.finite_weights import FiniteWeights
from anomalib_hgad.models.progress import LoggedProgress
from anomalib_hgad.models.run_folder import prepare_run_folder
from anomalib_hgad.models.trainer_checks import check_trainer

COMPONENTS = ("pre_processor", "post_processor", "evaluator", "visualizer")
"""Arguments that anomalib itself checks."""


def height_and_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of a size given as the side of a square or as (height, width)."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


class PluginModel(CheckpointedModel):
    """Base of the models, in addition to :class:`anomalib.models.AnomalibModule`.

    anomalib only finds direct subclasses of its own base, so this class comes before it and does not derive from it.
    """

    default_epochs: int
    """Epochs of the paper, used when the user sets no limit."""

    default_image_size: ClassVar[tuple[int, int]]
    """Image height and width of the paper."""

    def check_components(self, image_size: tuple[int, int]) -> None:
        """Check the pre- and post-processors that the user has given.

        Args:
            image_size: Height and width in the settings of the model.

        Raises:
            ValueError: If a sensitivity of the post-processor is not between 0 and 1.
        """
        module = cast("AnomalibModule", self)
        check_sensitivities(module.post_processor)
        warn_of_other_size(getattr(module.pre_processor, "transform", None), image_size)

    def forward(self, batch: torch.Tensor, *args: Any, **kwargs: Any) -> InferenceBatch:  # noqa: ANN401
        """Predict images as a test does, whether the model is in training mode or not.

        Args:
            batch: Images with values from 0 to 1, shape (B, 3, height, width).
            *args: Unused.
            **kwargs: Unused.

        Returns:
            The prediction, post-processed.

        Raises:
            ValueError: If the images have another shape or an integer type.
        """
        if batch.ndim != 4 or batch.shape[1] != 3 or not batch.is_floating_point():
            msg = "Expected images with floating-point values from 0 to 1, shape (B, 3, height, width), got "
            msg += f"{batch.dtype} of shape {tuple(batch.shape)}."
            raise ValueError(msg)
        module = cast("AnomalibModule", self)
        in_training = [part for part in module.modules() if part.training]
        if in_training:
            module.eval()
        try:
            return AnomalibModule.forward(module, batch, *args, **kwargs)
        finally:
            for part in in_training:
                part.training = True

    def configure_callbacks(self) -> list[Callback]:
        """Return anomalib's components and the callbacks that all models share."""
        if self.stage is not None:
            check_trainer(self.trainer)
            transform = getattr(cast("AnomalibModule", self).pre_processor, "transform", None)
            check_resized_first(transform, getattr(self.trainer, "datamodule", None))
            prepare_run_folder(self.trainer)
        components = super().configure_callbacks()
        for component in components:
            SeparatePictures.take_over(component)
        # Right after the post-processor: later callbacks read the labels.
        place = 1 + max((at for at, one in enumerate(components) if isinstance(one, PostProcessor)), default=-1)
        components.insert(place, MeaningfulLabels())
        own = [
            FiniteWeights(),  # before anything that is fitted to weights
            WholeCheckpoints(),
            QuietRun(),
            LoggedProgress(),
            TrainedModel(),
            LastValidation(),
            NamedImages(),
            PredictedTable(),
            RandomState(),
            Termination(),
        ]
        return [*components, *own]

    @staticmethod
    def configure_evaluator() -> ClassEvaluator:
        """Return metrics of each class and their means."""
        return ClassEvaluator()

    @classmethod
    def configure_visualizer(cls) -> SomePictures:
        """Return a visualizer of the worst images of a test, and of a sample of the others."""
        return SomePictures()

    @classmethod
    def configure_pre_processor(
        cls,
        image_size: tuple[int, int] | None = None,
        mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
        std: Sequence[float] = IMAGENET_DEFAULT_STD,
    ) -> PreProcessor:
        """Resize and normalise.

        Args:
            image_size: Height and width. Defaults to ``None``, those of the paper.
            mean: Channel means that the backbone was trained with. Defaults to ImageNet's.
            std: Channel standard deviations, likewise. Defaults to ImageNet's.

        Returns:
            The pre-processor.
        """
        size = image_size or cls.default_image_size
        return PreProcessor(
            transform=Compose([Resize(size, antialias=True), Normalize(mean=list(mean), std=list(std))])
        )

    @property
    def learning_type(self) -> LearningType:
        """Learns from normal images only."""
        return LearningType.ONE_CLASS

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """No sanity check before training: it would validate an untrained model."""
        return {"num_sanity_val_steps": 0}

    @property
    def trainer(self) -> Trainer:
        """The Lightning trainer."""
        return super().trainer

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:
        # Lightning falls back to 1000 epochs where the user sets no limit. `trainer_arguments` would override the
        # user's value, so the paper's is set here, where it is still known that the user has set none.
        loop = getattr(trainer, "fit_loop", None)
        if loop is not None and loop.max_epochs is None and loop.max_steps == -1:
            timed = any(isinstance(callback, Timer) for callback in loop.trainer.callbacks)
            loop.max_epochs = None if timed else self.default_epochs
        AnomalibModule.trainer.fset(self, trainer)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ANN401
        """Check the images of a batch.

        Args:
            batch: Batch in main memory, of images or of their cached features.
            dataloader_idx: Unused.

        Returns:
            The batch.

        Raises:
            ValueError: If an image has NaN or infinite values.
        """
        del dataloader_idx
        if isinstance(batch, ImageBatch):
            check_finite(cast("torch.Tensor", batch.image), batch.image_path)
        return batch

    def on_train_batch_end(self, *_: Any) -> None:  # noqa: ANN401
        """Mark a model with training steps as trained."""
        self.is_trained |= not self.fits_in_one_pass
