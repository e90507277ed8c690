# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Progress of a run in a log."""

from __future__ import annotations

import math
from typing import Any

from anomalib.models import AnomalibModule
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from rich import get_console

from anomalib_hgad.common.progress import LoggedTask, is_interactive, shows_progress


class LoggedProgress(Callback):
    """Writes progress as lines to a log, where Lightning would draw its bars only once, at the end."""

    def __init__(self) -> None:
        self._task: LoggedTask | None = None

    def on_train_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Start the lines of a training."""
        del pl_module
        epochs = trainer.max_epochs or 0
        self._start(trainer, "Training", trainer.num_training_batches * epochs if epochs > 0 else math.inf)

    def on_train_batch_end(self, *_: Any) -> None:  # noqa: ANN401
        """Count a batch of the training."""
        self._advance()

    def on_train_end(self, *_: Any) -> None:  # noqa: ANN401
        """End the lines of the training."""
        self._end()

    def on_validation_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Start the lines of a validation outside of a training."""
        del pl_module
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._start(trainer, "Validation", sum(trainer.num_val_batches))

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:  # noqa: ANN401
        """Count its batch."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._advance()

    def on_validation_end(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """End its lines."""
        del pl_module
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._end()

    def on_test_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Start the lines of a test."""
        del pl_module
        self._start(trainer, "Test", sum(trainer.num_test_batches))

    def on_predict_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Start the lines of a prediction."""
        del pl_module
        self._start(trainer, "Prediction", sum(trainer.num_predict_batches))

    def on_test_batch_end(self, *_: Any) -> None:  # noqa: ANN401
        """Count a batch of the test."""
        self._advance()

    def on_predict_batch_end(self, *_: Any) -> None:  # noqa: ANN401
        """Count a batch of the prediction."""
        self._advance()

    def on_test_end(self, *_: Any) -> None:  # noqa: ANN401
        """End the lines of the test."""
        self._end()

    def on_predict_end(self, *_: Any) -> None:  # noqa: ANN401
        """End the lines of the prediction."""
        self._end()

    def _start(self, trainer: Trainer, description: str, total: float) -> None:
        if shows_progress(trainer) and not is_interactive(get_console()):
            self._task = LoggedTask(description, int(total) if math.isfinite(total) and total > 0 else None)

    def _advance(self) -> None:
        if self._task is not None:
            self._task.advance()

    def _end(self) -> None:
        if self._task is not None:
            self._task.end()
        self._task = None
