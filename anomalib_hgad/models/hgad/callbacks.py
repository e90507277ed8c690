# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Callbacks of :class:`~anomalib_hgad.Hgad` for training and test."""

from __future__ import annotations

import logging

from anomalib.models import AnomalibModule
from lightning.fabric.utilities.data import sized_len
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_hgad.models.callbacks import is_validated, validates_fit
from anomalib_hgad.models.hgad.normal_pass import fit_mixtures, fit_whitening, inference, set_constants
from anomalib_hgad.models.schedule import limits_within_a_pass

logger = logging.getLogger(__name__)


class ClassCheck(Callback):
    """Raises an error before the first image if the data has classes that the model does not know."""

    def setup(self, trainer: Trainer, pl_module: AnomalibModule, stage: str) -> None:
        """Check the training data; an untrained model takes its classes from it."""
        if stage == TrainerFn.FITTING and pl_module.class_names:
            self._check(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Check the validation data."""
        self._check(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Check the test data."""
        self._check(trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Check the data to predict on."""
        self._check(trainer, pl_module)

    @staticmethod
    def _check(trainer: Trainer, pl_module: AnomalibModule) -> None:
        pl_module.labels.check(getattr(trainer, "datamodule", None))


class ClosedForm(Callback):
    """Fits everything that needs no gradient to normal images.

    The whitening of the flows is fitted once, before the first step. For a flow without parameters, whitening and
    mixture are fitted after one pass over the training images, which is the complete training. For a trained flow with
    full covariances, the mixture is fitted before the first step (the closed form), after every epoch and before every
    validation, so that losses and scores use the Gaussians of the current flow.
    """

    def __init__(self) -> None:
        self._fitted_step = -1
        self._seen: list[bool] = []
        """Whether the closed form had images of each class."""

    def on_train_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Fit the initial state; a resumed training already has one, unless classes were added."""
        model = pl_module.model
        if not model.trained:
            model.start_moments()
            return
        if pl_module.whiten and not model.whitened:
            fit_whitening(trainer, pl_module)
        if not trainer.ckpt_path or pl_module.classes_joined:
            self._fit(trainer, pl_module)
        self._fitted_step = trainer.global_step

    def on_validation_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Fit the mixture within a fit."""
        if validates_fit(trainer):
            self._fit(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Fit the mixture; warn if the single pass of a closed form has left images out."""
        self._fit(trainer, pl_module)
        if not pl_module.model.trained:
            self._warn_of_part(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: AnomalibModule, stage: str) -> None:
        """Free the memory."""
        del trainer, stage
        pl_module.model.forget_moments()

    def on_exception(self, trainer: Trainer, pl_module: AnomalibModule, exception: BaseException) -> None:
        """Free the memory."""
        del trainer, exception
        pl_module.model.forget_moments()

    def _warn_of_part(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Warn if the pass over the images has left some out."""
        taken = trainer.fit_loop.epoch_loop.batch_progress.current.completed
        batches = sized_len(trainer.train_dataloader)
        if batches is None or taken >= batches or not trainer.is_global_zero:
            return
        names = pl_module.threshold_names
        without = [name for name, seen in zip(names, self._seen, strict=True) if not seen]
        logger.warning(
            "The model was fitted to %d of %d batches of the training images, as %s ended the pass over them.%s "
            "Leave the setting out to fit the model to all.",
            taken,
            batches,
            ", ".join(limits_within_a_pass(trainer)) or "a callback",
            f" No image of: {', '.join(without)}. Scores of these classes are meaningless." if without else "",
        )

    def _fit(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        if self._fitted_step == trainer.global_step:
            return
        self._fitted_step = trainer.global_step
        if not pl_module.model.trained:
            self._seen = pl_module.model.fit().tolist()
            pl_module.is_trained = True
        elif pl_module.model.refitted:
            fit_mixtures(trainer, pl_module)


class NormalConstants(Callback):
    """Sets the constants of the scores from normal images.

    They are set before every validation, whose scores need them, and, in a training without validations, before the
    checkpoint of an epoch. Location and spread of the scores come from held-out normal images, if there are any.
    """

    def __init__(self) -> None:
        self._step_of_constants = -1

    def on_validation_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Set the constants of the scores within a fit."""
        if validates_fit(trainer):
            self._calibrate(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Set the constants of the scores in a training without validations."""
        if not is_validated(trainer):
            self._calibrate(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Set the constants of the scores if the training continued after the last validation."""
        if self._step_of_constants != trainer.global_step:
            self._calibrate(trainer, pl_module)

    def _calibrate(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        with inference(trainer, pl_module.model):
            set_constants(trainer, pl_module)
        self._step_of_constants = trainer.global_step
