# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Shared base of this package's models: their interface to anomalib."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from anomalib import LearningType
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.trainer.states import TrainerFn
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_hgad.data.images import check_finite
from anomalib_hgad.deploy.export import DescribedExport
from anomalib_hgad.evaluation.evaluator import ClassEvaluator
from anomalib_hgad.evaluation.pictures import SeparatePictures, SomePictures
from anomalib_hgad.models.callbacks import (
    UNVALIDATED_KEY,
    LastValidation,
    MeaningfulLabels,
    NamedImages,
    PredictedTable,
    QuietRun,
    RandomState,
    Termination,
    TrainedModel,
)
from anomalib_hgad.models.checkpoint import (
    SETTINGS_KEY,
    check_settings,
    check_versions,
    check_weights,
    describe,
    with_metrics_of,
)
from anomalib_hgad.models.checkpoint_io import WholeCheckpoints, explain_checkpoint_errors
from anomalib_hgad.models.component_checks import check_resized_first, check_sensitivities, warn_of_other_size
from anomalib_hgad.models.finite_weights import FiniteWeights, check_finite_weights
from anomalib_hgad.models.progress import LoggedProgress
from anomalib_hgad.models.run_folder import prepare_run_folder
from anomalib_hgad.models.schedule import resume_with
from anomalib_hgad.models.trainer_checks import check_trainer

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

TRAINED_KEY = "hgad_is_trained"
"""Checkpoint key: whether the model has been trained for at least one step, or fitted."""


COMPONENTS = ("pre_processor", "post_processor", "evaluator", "visualizer")
"""Arguments that anomalib itself checks."""


def height_and_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of a size given as the side of a square or as (height, width)."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


class PluginModel(DescribedExport):
    """Base of the models, in addition to :class:`anomalib.models.AnomalibModule`.

    anomalib only finds direct subclasses of its own base, so this class comes before it and does not derive from it.
    """

    default_epochs: int
    """Epochs of the paper, used when the user sets no limit."""

    default_image_size: ClassVar[tuple[int, int]]
    """Image height and width of the paper."""

    pre_processor_given: bool
    """Whether the user has set the pre-processor."""

    is_trained = False
    """Whether the model has been trained for a step, or fitted, here or before the checkpoint."""

    lr: float
    """Full learning rate."""

    weight_decay: float
    """Weight decay of the optimiser's first parameters."""

    _resumed_step: int | None = None

    @property
    def fits_in_one_pass(self) -> bool:
        """Whether training is one pass over the images without steps; a resumed one then starts again."""
        return False

    @property
    def settings(self) -> dict[str, object]:
        """Settings that scores depend on, as plain data; a checkpoint must have the same."""
        module = cast("AnomalibModule", self)
        pre_processor = module.pre_processor
        made = getattr(pre_processor, "transform", pre_processor)
        return {
            "pre_processor": pre_processor is not None and " ".join(repr(made).split()),
            "post_processor": module.post_processor is not None,
        }

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

    def use_one_transform(self) -> None:
        """Transform images in memory exactly as in a test: anomalib's ``export_transform`` has no antialiasing.

        An export replaces it by its own transform.
        """
        pre_processor = cast("AnomalibModule", self).pre_processor
        if isinstance(pre_processor, PreProcessor):
            pre_processor.export_transform = pre_processor.transform

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
        """anomalib's components and the callbacks that all models share."""
        if self.stage is not None:
            check_trainer(self.trainer)
            transform = getattr(cast("AnomalibModule", self).pre_processor, "transform", None)
            check_resized_first(transform, getattr(self.trainer, "datamodule", None))
            prepare_run_folder(self.trainer)
        components = super().configure_callbacks()
        for component in components:
            SeparatePictures.take_over(component)
        # Right after the post-processor: what comes then reads the labels.
        place = 1 + max((at for at, one in enumerate(components) if isinstance(one, PostProcessor)), default=-1)
        components.insert(place, MeaningfulLabels())
        own = [
            FiniteWeights(),  # before all that is fitted to weights
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
        """Metrics of each class and their means."""
        return ClassEvaluator()

    @classmethod
    def configure_visualizer(cls) -> SomePictures:
        """Pictures of the worst images of a test, and of a sample of the others."""
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
        return cast("Trainer", super().trainer)

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
        """Remember the step."""
        self.is_trained |= not self.fits_in_one_pass

    @property
    def stage(self) -> TrainerFn | None:
        """What the trainer is doing, if there is one."""
        module = cast("AnomalibModule", self)
        return None if module._trainer is None else module._trainer.state.fn

    def has_gone_on_from(self, checkpoint: dict[str, Any]) -> bool:
        """Whether a test loads the checkpoint that the preceding training was resumed from.

        Args:
            checkpoint: The checkpoint that the test loads.
        """
        return (
            self.stage == TrainerFn.TESTING
            and self._resumed_step == checkpoint["global_step"]
            and (checkpoint["global_step"] < self.trainer.global_step or self.fits_in_one_pass)
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the versions and settings that the checkpoint was made with.

        Raises:
            ArithmeticError: If a weight is NaN or infinite: the last good checkpoint stays.
        """
        if self.stage == TrainerFn.FITTING:
            check_finite_weights(self.trainer, cast("AnomalibModule", self))
        super().on_save_checkpoint(checkpoint)
        describe(checkpoint, self.settings)
        checkpoint[TRAINED_KEY] = self.is_trained
        if self.stage == TrainerFn.FITTING:
            for callback in cast("Any", self.trainer).callbacks:
                if isinstance(callback, LastValidation):
                    callback.record(self.trainer, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint fits; a test after a resumed training uses the model as trained now.

        Args:
            checkpoint: The checkpoint.

        Raises:
            ValueError: If it is of another model, or was made with other settings or versions.
        """
        check_versions(checkpoint)
        module = cast("AnomalibModule", self)
        pre_processor = module.pre_processor
        transform = getattr(pre_processor, "transform", None)
        check_settings(checkpoint, self.settings | self._restored(checkpoint))
        super().on_load_checkpoint(checkpoint)
        if transform is not None and pre_processor.transform is None:
            # anomalib restores only some transforms and removes all others. This one equals the checkpoint's.
            pre_processor.transform = transform
        self.use_one_transform()
        if self.stage == TrainerFn.FITTING:
            self._resumed_step = checkpoint["global_step"]
            resume_with(checkpoint, self.lr, self.weight_decay)
        elif self.has_gone_on_from(checkpoint):
            # `anomalib train --ckpt_path` resumes from the checkpoint, and then tests that checkpoint, not the result.
            logger.warning("Testing the model as trained now, not the checkpoint that its training was resumed from.")
            checkpoint["state_dict"] = module.state_dict()
            checkpoint[TRAINED_KEY] = self.is_trained
            checkpoint["callbacks"] = {}  # among them the post-processor with its earlier thresholds
        elif steps := checkpoint.get(UNVALIDATED_KEY):
            logger.warning(
                "The checkpoint was saved %d steps after the last validation: its scales and thresholds belong to "
                "earlier weights. Use one that was saved after a validation.",
                steps,
            )
        check_weights(checkpoint, module)
        self.is_trained = checkpoint[TRAINED_KEY]
        # This model may have other metrics.
        checkpoint["state_dict"] = with_metrics_of(checkpoint["state_dict"], module.state_dict())

    def check_trained(self) -> None:
        """Check that the model is trained.

        Raises:
            ValueError: If it still has its initial weights.
        """
        if not self.is_trained:
            msg = "The model was not trained: its scores would be those of its initial weights. "
            msg += "Give a checkpoint (--ckpt_path, or load_from_checkpoint), or train it for an epoch or more."
            raise ValueError(msg)

    def _restored(self, checkpoint: dict[str, Any]) -> dict[str, object]:
        """Settings of the components that anomalib restores from the checkpoint where the user has not set them."""
        module = cast("AnomalibModule", self)
        there = checkpoint[SETTINGS_KEY]
        restored = []
        # A trainer keeps the components that it was given, and only their settings change.
        if module.pre_processor is not None and not self.pre_processor_given:
            kept = (checkpoint.get("anomalib_pre_processor_config") or {}).get("transform") is not None
            restored += ["pre_processor"] if kept or (not there["pre_processor"] and self.stage is None) else []
        if not there["post_processor"] and self.stage is None:
            restored.append("post_processor")
        return {name: there[name] for name in restored}

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, *args: Any, **kwargs: Any) -> Self:  # noqa: ANN401
        """Load a model from a checkpoint, which includes the backbone's weights: nothing is downloaded or seeded.

        Args:
            checkpoint_path: The checkpoint.
            *args: As in :meth:`anomalib.models.AnomalibModule.load_from_checkpoint`.
            **kwargs: As there.

        Returns:
            The model.

        Raises:
            ValueError: If the file is truncated, is not a checkpoint, or holds more than data.
        """
        kwargs = {"pre_trained": False, "backbone_weights": None, "seed": None} | kwargs
        with explain_checkpoint_errors(checkpoint_path):
            return cast("Self", super().load_from_checkpoint(checkpoint_path, *args, **kwargs))
