# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Ends a training whose weights are NaN or infinite, before scores, scales or a checkpoint are made from them."""

from __future__ import annotations

import torch
from anomalib.models import AnomalibModule
from lightning.pytorch import Callback, Trainer

from anomalib_hgad.models.callbacks import validates_fit


def check_finite_weights(trainer: Trainer, module: AnomalibModule) -> None:
    """Check the trained weights.

    Args:
        trainer: Trainer of the running fit.
        module: The model.

    Raises:
        ArithmeticError: If a weight is NaN or infinite, as after a loss that is.
    """
    sums = torch.stack([parameter.detach().sum() for parameter in module.parameters() if parameter.requires_grad])
    if not sums.isfinite().all():
        msg = f"Weights are NaN or infinite in epoch {trainer.current_epoch}: the loss was, too. Train with a smaller "
        msg += "lr, or in float32 if it was half precision. The last checkpoint is unchanged."
        raise ArithmeticError(msg)


class FiniteWeights(Callback):
    """Checks the weights before every validation, and before other callbacks run after an epoch.

    The model checks them before every checkpoint: Lightning calls no callback before one with only weights.
    """

    def on_validation_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Check the weights within a fit."""
        if validates_fit(trainer):
            check_finite_weights(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Check the weights."""
        check_finite_weights(trainer, pl_module)
