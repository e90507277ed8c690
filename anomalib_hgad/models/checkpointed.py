# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What a model saves in checkpoints, and checks when it is restored from one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from anomalib.models.components import AnomalibModule
from anomalib.pre_processing import PreProcessor
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_hgad.deploy.export import DescribedExport
from anomalib_hgad.models.callbacks import UNVALIDATED_KEY, LastValidation
from anomalib_hgad.models.checkpoint import (
    SETTINGS_KEY,
    check_settings,
    check_versions,
    check_weights,
    describe,
    with_metrics_of,
)
from anomalib_hgad.models.checkpoint_io import explain_checkpoint_errors
from anomalib_hgad.models.finite_weights import check_finite_weights
from anomalib_hgad.models.schedule import resume_with

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from typing_extensions import Self

logger = logging.getLogger(__name__)

TRAINED_KEY = "hgad_is_trained"
"""Checkpoint key: whether the model has been trained for at least one step, or fitted."""


class CheckpointedModel(DescribedExport):
    """Base of the models that saves and restores them; comes before :class:`anomalib.models.AnomalibModule`."""

    trainer: Trainer
    """The Lightning trainer."""

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

    def use_one_transform(self) -> None:
        """Transform images in memory exactly as in a test: anomalib's ``export_transform`` has no antialiasing.

        An export replaces it by its own transform.
        """
        pre_processor = cast("AnomalibModule", self).pre_processor
        if isinstance(pre_processor, PreProcessor):
            pre_processor.export_transform = pre_processor.transform

    @property
    def stage(self) -> TrainerFn | None:
        """Stage that the trainer is in, if there is one."""
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
            **kwargs: Likewise.

        Returns:
            The model.

        Raises:
            ValueError: If the file is truncated, is not a checkpoint, or holds more than data.
        """
        kwargs = {"pre_trained": False, "backbone_weights": None, "seed": None} | kwargs
        with explain_checkpoint_errors(checkpoint_path):
            return cast("Self", super().load_from_checkpoint(checkpoint_path, *args, **kwargs))
