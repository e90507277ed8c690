# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Callbacks that all models of this package share."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import torch
from anomalib.data import ImageBatch, PredictDataset
from anomalib.models import AnomalibModule
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torchvision.transforms.v2 import Resize

from anomalib_hgad.common.processes import gather_objects
from anomalib_hgad.common.warnings_by_design import ignored
from anomalib_hgad.data.batch import cuts_tiles
from anomalib_hgad.data.images import NamingPredictDataset
from anomalib_hgad.deploy.transforms import steps
from anomalib_hgad.evaluation.post_processing import remove_labels_without_meaning, warn_of_missing_labels
from anomalib_hgad.evaluation.predictions import PREDICTED_FILE, Prediction, predictions_of_batch, write_predictions

UNVALIDATED_KEY = "hgad_steps_since_validation"
"""Checkpoint key: the number of training steps since scales and thresholds were set."""

TERMINATED = 128 + signal.SIGTERM
"""Exit status of a program that SIGTERM ended."""


class TrainedModel(Callback):
    """Raises an error before an untrained model scores an image."""

    def on_validation_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Check the model of a validation outside of a training."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            pl_module.check_trained()

    def on_test_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Check the model."""
        del trainer
        pl_module.check_trained()

    def on_predict_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Check the model."""
        del trainer
        pl_module.check_trained()


class QuietRun(Callback):
    """Silences warnings of Lightning about what these models do by design."""

    BY_DESIGN = (
        ".*returned `None`, this fit will run with no optimizer",  # added classes are fitted without steps
        r"Found \d+ module\(s\) in eval mode at the start of training",  # the backbone is frozen
        "You have overridden `on_before_batch_transfer` in `LightningModule`",  # it checks the images
    )

    def __init__(self) -> None:
        self._undo = ExitStack()

    def setup(self, trainer: Trainer, pl_module: AnomalibModule, stage: str) -> None:
        """Ignore these warnings from now on."""
        del trainer, pl_module, stage
        self._undo.enter_context(ignored(*self.BY_DESIGN))

    def teardown(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
        """Show these warnings again."""
        self._undo.close()

    on_exception = teardown


def is_validated(trainer: Trainer) -> bool:
    """Whether a training has images to validate on: a datamodule may have none, whatever the trainer's settings.

    Args:
        trainer: The trainer, from the start of the training on.
    """
    return sum(trainer.num_val_batches) > 0


def validates_fit(trainer: Trainer) -> bool:
    """Whether a validation is one of a training, and not Lightning's check of two batches before its start.

    Args:
        trainer: The trainer, within a validation.
    """
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


class LastValidation(Callback):
    """Validates the final model of a training, if the trainer has not.

    Scales and thresholds come from a validation: those of an earlier one belong to other weights. Lightning validates
    every ``check_val_every_n_epoch`` epochs or ``val_check_interval`` batches, which may leave out the last one. A
    checkpoint saved between two validations records it, and scoring images with it gives a warning.
    """

    def __init__(self) -> None:
        self._validated_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Load the validation images, as Lightning does later where the first epoch is not validated."""
        del pl_module
        if not trainer.enable_validation:
            return
        trainer.validating = True
        trainer.fit_loop.epoch_loop.val_loop.setup_data()
        trainer.training = True

    def on_validation_end(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Remember the validated step."""
        del pl_module
        if validates_fit(trainer):
            self._validated_step = trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Validate after the last epoch, before its checkpoint."""
        del pl_module
        loop = trainer.fit_loop
        limits = (
            (trainer.current_epoch + 1, loop.max_epochs),
            (trainer.global_step, trainer.max_steps),
        )
        if trainer.should_stop or any(limit not in {None, -1} and count >= limit for count, limit in limits):
            self._validate(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Validate where a callback has stopped the training after its epoch."""
        del pl_module
        self._validate(trainer)

    def record(self, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
        """Save the number of steps since scales and thresholds were set.

        The model calls this: Lightning calls no callback when it saves only weights.

        Args:
            trainer: Trainer of the running fit.
            checkpoint: The checkpoint.
        """
        if is_validated(trainer):
            checkpoint[UNVALIDATED_KEY] = trainer.global_step - self._validated_step

    def on_load_checkpoint(self, trainer: Trainer, pl_module: AnomalibModule, checkpoint: dict[str, Any]) -> None:
        """Restore the step of the last validation."""
        del pl_module
        if trainer.state.fn == TrainerFn.FITTING:
            self._validated_step = checkpoint["global_step"] - checkpoint.get(UNVALIDATED_KEY, 0)

    def _validate(self, trainer: Trainer) -> None:
        if self._validated_step == trainer.global_step or not is_validated(trainer):
            return
        # As Lightning does within an epoch; it has no public way to validate during a training.
        trainer.validating = True
        trainer.fit_loop.epoch_loop.val_loop.run()
        trainer.training = True


def _predict_loaders(trainer: Trainer) -> list[Any]:
    loaders = trainer.predict_dataloaders
    return loaders if isinstance(loaders, list) else [loaders]


def _predicts_tiles(trainer: Trainer) -> bool:
    """Whether anomalib's tiled ensemble predicts."""
    return any(cuts_tiles(getattr(loader, "collate_fn", None)) for loader in _predict_loaders(trainer))


class NamedImages(Callback):
    """Makes prediction errors name the image file, and resizes images of different sizes before they are batched."""

    def on_predict_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Change the dataset that anomalib has made of a folder; its loader cannot be given another one."""
        first = steps(getattr(pl_module.pre_processor, "transform", None))[:1]
        resize = first[0] if first and isinstance(first[0], Resize) else None
        for loader in _predict_loaders(trainer):
            dataset = getattr(loader, "dataset", None)
            if type(dataset) is PredictDataset:
                NamingPredictDataset.take_over(dataset, resize)


class MeaningfulLabels(Callback):
    """Removes the labels that anomalib sets without a validation, and warns; comes right after the post-processor.

    Without a threshold anomalib compares raw scores with 0.5. Its tiled ensemble needs labels of tiles, and then sets
    labels of complete images itself.
    """

    def on_train_end(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Warn that a training without a validation sets no threshold."""
        del trainer
        warn_of_missing_labels(pl_module.post_processor)

    def on_test_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Warn that a test has no labels."""
        del trainer
        warn_of_missing_labels(pl_module.post_processor)

    def on_predict_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Warn that a prediction has no labels."""
        if not _predicts_tiles(trainer):
            warn_of_missing_labels(pl_module.post_processor)

    def on_test_batch_end(self, trainer: Trainer, pl_module: AnomalibModule, outputs: ImageBatch, *args: Any) -> None:  # noqa: ANN401
        """Remove labels from a batch of a test."""
        del trainer, args
        remove_labels_without_meaning(outputs, pl_module.post_processor)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: AnomalibModule,
        outputs: ImageBatch,
        *args: Any,  # noqa: ANN401
    ) -> None:
        """Remove labels from a batch of a prediction."""
        del args
        if not _predicts_tiles(trainer):
            remove_labels_without_meaning(outputs, pl_module.post_processor)


class Termination(Callback):
    """Makes SIGTERM end a run as it ends any program: with exit status 143, and without further work.

    Lightning raises a ``SystemExit`` without a status between two batches, which means success, and ignores a signal
    that comes after the last batch.
    """

    def on_exception(self, trainer: Trainer, pl_module: AnomalibModule, exception: BaseException) -> None:
        """Set the exit status of Lightning's exception."""
        del trainer, pl_module
        if isinstance(exception, SIGTERMException):
            exception.code = TERMINATED

    def teardown(self, trainer: Trainer, pl_module: AnomalibModule, stage: str) -> None:
        """End the program if the signal came after the last batch."""
        del pl_module, stage
        if trainer.received_sigterm:
            raise SIGTERMException(TERMINATED)


class PredictedTable(Callback):
    """Writes the predictions of all images as a test does: to ``predicted.csv``, replacing an earlier one.

    Only the rows of a batch are kept; the command does not keep the batches either, as Lightning does by default. An
    interrupted prediction writes nothing, nor does one of the tiles of anomalib's tiled ensemble, whose scores are not
    those of the images.
    """

    def __init__(self) -> None:
        self._rows: list[Prediction] = []

    def on_predict_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Forget the rows of an interrupted prediction."""
        del pl_module
        self._rows = []
        if any(isinstance(callback, SaveConfigCallback) for callback in cast("Any", trainer).callbacks):
            trainer.predict_loop.return_predictions = False  # this is the command: nobody uses the return value

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: AnomalibModule,
        outputs: ImageBatch,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch, already post-processed: the post-processor is an earlier callback."""
        del trainer, pl_module, batch, batch_idx, dataloader_idx
        self._rows += predictions_of_batch(outputs)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Write the table; of several processes only the first one does, with the rows of all."""
        del pl_module
        # At the end, and not batch by batch: Lightning repeats no image here, so processes may have fewer batches.
        rows = [row for of_process in gather_objects(self._rows) for row in of_process]
        self._rows = []
        if trainer.is_global_zero and not _predicts_tiles(trainer):
            write_predictions(rows, Path(trainer.default_root_dir), PREDICTED_FILE)


class RandomState(Callback):
    """Keeps the random state in checkpoints: a resumed training sees the images in the same order."""

    def on_save_checkpoint(self, trainer: Trainer, pl_module: AnomalibModule, checkpoint: dict[str, Any]) -> None:
        """Save the random state, which sets the order of the images in the next epoch."""
        del trainer, pl_module
        checkpoint["hgad_random_state"] = torch.get_rng_state()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: AnomalibModule, checkpoint: dict[str, Any]) -> None:
        """Restore the random state before Lightning draws the order of the first images."""
        del pl_module
        if trainer.state.fn == TrainerFn.FITTING:
            torch.set_rng_state(checkpoint["hgad_random_state"].cpu())
