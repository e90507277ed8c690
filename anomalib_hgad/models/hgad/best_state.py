# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Keeps the best state of a training that starts from the closed form, the start included."""

from __future__ import annotations

import logging
from typing import Any

import torch
from anomalib.models import AnomalibModule
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_hgad.models.callbacks import validates_fit
from anomalib_hgad.models.hgad.criterion import StateFigures, SyntheticCriterion, kept_state
from anomalib_hgad.models.hgad.torch_model import HgadModel

logger = logging.getLogger(__name__)

COURSE_KEY = "hgad_training_course"
TRAINING_KEY = "hgad_training_state"

DENSITY = ("flows.", "priors.", "rivals")
"""Name prefixes of the tensors of a state: those that steps and refits change, but not the constants of the scores."""


class BestState(Callback):
    """Gives a model with full covariances its best state so far, except in training steps.

    States are compared by :class:`~anomalib_hgad.models.hgad.criterion.SyntheticCriterion`, on normal images only: the
    closed form before the first step, then the state before each validation, and after each epoch. An earlier state is
    kept if a later one is no better. The best state immediately replaces the current one, so that constants of the
    scores, thresholds, checkpoints and the trained model all belong to it. The next step continues from the state of
    the training, and so does a training resumed from a checkpoint.

    It comes after :class:`~anomalib_hgad.models.hgad.callbacks.ClosedForm`, which fits the compared state, and
    before :class:`~anomalib_hgad.models.hgad.callbacks.NormalConstants`.
    """

    def __init__(self) -> None:
        self._criterion: SyntheticCriterion | None = None
        self._best: dict[str, torch.Tensor] | None = None
        self._training: dict[str, torch.Tensor] | None = None
        """State of the training while the model is in the best one."""

    def on_train_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Evaluate the closed form, or restore the course of a resumed training."""
        if not pl_module.model.refitted:
            return
        images = pl_module.training_data.held_out_images
        if images is None:
            logger.warning(
                "No images are held out, so the training cannot be compared with the closed form that it "
                "starts from: its last state is kept. Set calibration_share, and train on MultiClass.",
            )
            return
        self._criterion = SyntheticCriterion(trainer, pl_module, images)
        if self._training is not None:
            self._best = density_state(pl_module.model)
            return
        pl_module.training_course = []
        figures = self._criterion.figures(trainer, pl_module, float(trainer.current_epoch))
        self._keep(pl_module, figures)
        # Figures logged by the module here would be taken for those of the first epoch.
        for run_logger in trainer.loggers:
            run_logger.log_metrics(logged(figures), step=trainer.global_step)

    def on_train_batch_start(self, trainer: Trainer, pl_module: AnomalibModule, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """Restore the state of the training."""
        del trainer, batch, batch_idx
        if self._training is not None:
            set_density_state(pl_module.model, self._training)
            self._training = None

    def on_validation_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Evaluate the state within a fit, so that the best one is validated."""
        if validates_fit(trainer):
            self._judge_epoch(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Evaluate the state in epochs without a validation."""
        self._judge_epoch(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Log which state was kept."""
        if self._criterion is None or not pl_module.training_course:
            return
        course = pl_module.training_course
        kept = kept_state(course)
        if trainer.is_global_zero:
            logger.info(
                "Kept the state after epoch %g of %g: image AUROC %.1f %% and pixel AUROC %.1f %% of synthetic "
                "anomalies on held-out images; those of the closed form are %.1f %% and %.1f %%.",
                kept.epoch,
                course[-1].epoch,
                *(100 * auroc for figures in (kept, course[0]) for auroc in (figures.image_auroc, figures.pixel_auroc)),
            )

    def on_exception(self, trainer: Trainer, pl_module: AnomalibModule, exception: BaseException) -> None:
        """Leave the model in the best state."""
        del trainer, exception
        if self._best is not None and self._training is None:
            self._training = density_state(pl_module.model)
            set_density_state(pl_module.model, self._best)

    def teardown(self, trainer: Trainer, pl_module: AnomalibModule, stage: str) -> None:
        """Free the memory."""
        del trainer, pl_module, stage
        self._criterion = self._best = self._training = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: AnomalibModule, checkpoint: dict[str, Any]) -> None:
        """Save the best state as the model, and the state of the training in addition."""
        del trainer
        if self._best is None:
            return
        training = self._training
        if training is None:  # between two steps the model is in training
            training = density_state(pl_module.model)
            checkpoint["state_dict"] |= {f"model.{name}": tensor for name, tensor in self._best.items()}
        checkpoint[TRAINING_KEY] = training

    def on_load_checkpoint(self, trainer: Trainer, pl_module: AnomalibModule, checkpoint: dict[str, Any]) -> None:
        """Restore the state of the training."""
        del pl_module
        if trainer.state.fn == TrainerFn.FITTING:
            self._training = checkpoint.get(TRAINING_KEY)

    def _judge_epoch(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        if self._criterion is None or self._training is not None:  # the latter was judged already
            return
        batches = trainer.fit_loop.epoch_loop.batch_progress.current.completed
        epoch = trainer.current_epoch + batches / trainer.num_training_batches
        figures = self._criterion.figures(trainer, pl_module, epoch)
        self._keep(pl_module, figures)
        pl_module.log_dict(logged(figures), on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def _keep(self, pl_module: AnomalibModule, figures: StateFigures) -> None:
        """Replace the state of the training, which has these figures, by the best one."""
        course: list[StateFigures] = pl_module.training_course
        best = max((earlier.criterion for earlier in course), default=-1.0)
        kept = figures.criterion > best
        course.append(figures._replace(kept=kept))
        self._training = density_state(pl_module.model)
        if kept or self._best is None:
            self._best = self._training
        set_density_state(pl_module.model, self._best)


def logged(figures: StateFigures) -> dict[str, float]:
    """Return figures by the names that they are logged under."""
    return {
        "val_synthetic_image_AUROC": figures.image_auroc,
        "val_synthetic_pixel_AUROC": figures.pixel_auroc,
        "val_log_likelihood": figures.log_likelihood,
    }


def density_state(model: HgadModel) -> dict[str, torch.Tensor]:
    """Copy the flows and mixtures of a model to main memory."""
    return {
        name: tensor.detach().to("cpu", copy=True)
        for name, tensor in model.state_dict().items()
        if name.startswith(DENSITY)
    }


def set_density_state(model: HgadModel, state: dict[str, torch.Tensor]) -> None:
    """Set the flows and mixtures of a model to those that :func:`density_state` copied.

    Args:
        model: The model. Its parameter objects, which an optimiser refers to, stay the same.
        state: The state.
    """
    model.load_state_dict(state, strict=False)
