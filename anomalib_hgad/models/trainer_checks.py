# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Checks for settings of the trainer and its data that the models of this package do not support."""

from __future__ import annotations

from typing import Any, cast

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    LearningRateFinder,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.trainer.states import TrainerFn

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")

LEAST_OF_DATA = {"train_batch_size": 1, "eval_batch_size": 1, "num_workers": 0}
"""Integer settings of anomalib's datamodules, and their minima."""

UNSUITABLE: dict[type[Callback], str] = {
    LearningRateFinder: (
        "it trains without anomalib's callbacks, such as the pre-processor. Leave it out, and set the model's lr"
    ),
    BatchSizeFinder: (
        "it trains without anomalib's callbacks, such as the pre-processor. Leave it out, and set data.train_batch_size"
    ),
    StochasticWeightAveraging: (
        "it changes the weights after the last validation, which sets scales and thresholds. Leave it out"
    ),
    WeightAveraging: (
        "it averages only the weights, not what is fitted to them, such as scales and thresholds. Leave it out"
    ),
}
"""Callbacks that training does not support, and why."""


def check_trainer(trainer: Trainer) -> None:
    """Check that the models of this package support the settings of a trainer.

    Args:
        trainer: The trainer, before its callbacks are set up.

    Raises:
        ValueError: If its precision is not one of :data:`PRECISIONS`, if it trains with one of :data:`UNSUITABLE`, or
            if a setting of its data is below its minimum.
    """
    for name, least in LEAST_OF_DATA.items():
        value = getattr(getattr(trainer, "datamodule", None), name, least)
        if not isinstance(value, int) or value < least:
            msg = f"data.{name} is out of range: expected an integer of at least {least}, got {value!r}."
            raise ValueError(msg)
    if trainer.precision not in PRECISIONS:
        msg = "Images are in float32, and densities need it: expected trainer.precision to be one of "
        msg += f"{', '.join(map(repr, PRECISIONS))}, got {trainer.precision!r}."
        raise ValueError(msg)
    if trainer.state.fn != TrainerFn.FITTING:
        return
    for callback in cast("Any", trainer).callbacks:
        for kind, reason in UNSUITABLE.items():
            if isinstance(callback, kind):
                msg = f"{type(callback).__name__} does not work with this model: {reason}."
                raise ValueError(msg)  # noqa: TRY004 - the type is right, its use is not
