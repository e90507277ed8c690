# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Course of a training: optimiser, learning rate and stages, as fractions of its optimiser steps (HGAD, Sec. 4.1)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer
from torch import nn
from torch.optim import Adam

from anomalib_hgad.common.checks import check_range

logger = logging.getLogger(__name__)

WARMUP_START = 0.1
"""Learning rate at the first step, relative to the full one."""

COSINE_END = 1e-3
"""Learning rate at the last step, relative to the full one."""

TRAINING_ARGUMENTS: Mapping[str, float] = {
    "weight_decay": 1e-4,
    "warmup": 0.08,
    "first_stage": 0.08,
    "label_smoothing": 0.02,
}
"""Settings of a training that are rarely changed, see :class:`anomalib_hgad.Hgad`."""


def checked_training_arguments(given: Mapping[str, float] | None) -> dict[str, float]:
    """Return all settings of :data:`TRAINING_ARGUMENTS`.

    Args:
        given: Settings that differ from their defaults.

    Returns:
        The settings.

    Raises:
        ValueError: If there is no setting of such a name, or if one is out of range.
    """
    given = dict(given or {})
    if unknown := sorted(given.keys() - TRAINING_ARGUMENTS.keys()):
        msg = f"training_arguments: there is no setting {', '.join(unknown)}. Expected some of "
        msg += f"{', '.join(TRAINING_ARGUMENTS)}."
        raise ValueError(msg)
    for name, value in given.items():
        check_range("0 <= {} < inf" if name == "weight_decay" else "0 <= {} < 1", **{name: value})
    return dict(TRAINING_ARGUMENTS) | given


@dataclass(frozen=True)
class TrainingCourse:
    """Schedule of a training.

    Attributes:
        total_steps: Optimiser steps of the training.
        warmup: Fraction of the steps with a rising learning rate.
        first_stage: Fraction of the steps with only the inter-class losses.
    """

    total_steps: int
    warmup: float
    first_stage: float

    def learning_rate_factor(self, step: int) -> float:
        """Compute a linear warm-up from a tenth, then a cosine down to a thousandth.

        Args:
            step: Steps taken so far.

        Returns:
            Factor of the full learning rate.
        """
        warmup_steps = self.warmup * self.total_steps
        if step < warmup_steps:
            return WARMUP_START + (1 - WARMUP_START) * step / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1.0, self.total_steps - warmup_steps))
        return COSINE_END + (1 - COSINE_END) * 0.5 * (1 + math.cos(math.pi * progress))

    def stage(self, step: int) -> int:
        """Return 1 while only the inter-class losses are trained, then 2.

        Args:
            step: Steps taken so far.

        Returns:
            The stage.
        """
        return 1 if step < self.first_stage * self.total_steps else 2


def train_for_one_pass(trainer: Trainer) -> None:
    """Make a training end after one pass over the images, with a validation.

    Args:
        trainer: The trainer, before its first epoch.
    """
    given = {"max_epochs": trainer.fit_loop.max_epochs, "check_val_every_n_epoch": trainer.check_val_every_n_epoch}
    if longer := [f"{name}={value}" for name, value in given.items() if value not in {None, 1}]:
        logger.warning("The model is fitted in one pass over the training images: %s counts as 1.", ", ".join(longer))
    trainer.fit_loop.max_epochs = 1
    if trainer.check_val_every_n_epoch is not None:
        trainer.check_val_every_n_epoch = 1


def limits_within_a_pass(trainer: Trainer) -> list[str]:
    """Return the settings that may end a training before it has seen all images, as the user writes them.

    Args:
        trainer: The trainer.
    """
    settings = vars(trainer)
    if settings["fast_dev_run"]:  # it sets the others
        return ["trainer.fast_dev_run"]
    overfit = settings["overfit_batches"]
    limits = [f"trainer.overfit_batches={overfit}"] if overfit else []
    limited = isinstance(trainer.limit_train_batches, int) or trainer.limit_train_batches < 1
    if limited and not limits:  # overfit_batches sets both
        limits.append(f"trainer.limit_train_batches={trainer.limit_train_batches}")
    if trainer.max_steps != -1:
        limits.append(f"trainer.max_steps={trainer.max_steps}")
    if any(isinstance(callback, Timer) for callback in cast("Any", trainer).callbacks):
        limits.append("trainer.max_time")
    return limits


def total_steps(trainer: Trainer) -> int:
    """Return the number of optimiser steps of a training.

    Args:
        trainer: The trainer, once it has the data.

    Returns:
        The number of steps.

    Raises:
        ValueError: If the training has no end.
    """
    steps = trainer.estimated_stepping_batches
    if math.isinf(steps):
        msg = "The learning rate schedule needs the length of the training, got max_epochs=-1. Set "
        msg += "trainer.max_epochs or trainer.max_steps."
        raise ValueError(msg)
    return int(steps)


def resume_with(checkpoint: dict[str, Any], lr: float, weight_decay: float) -> None:
    """Resume a training with the settings of the model: Lightning would restore those of the checkpoint.

    Args:
        checkpoint: Checkpoint of the training, before its optimiser is restored.
        lr: Full learning rate.
        weight_decay: Weight decay of the optimiser's first parameters.
    """
    given = {"lr": lr, "weight_decay": weight_decay}
    for state in checkpoint.get("optimizer_states", []):
        groups = state["param_groups"]
        made_with = {"lr": groups[0]["initial_lr"], "weight_decay": groups[0]["weight_decay"]}
        groups[0]["weight_decay"] = weight_decay
        if changed := [
            f"{name}={given[name]}, not {made_with[name]}" for name in given if given[name] != made_with[name]
        ]:
            logger.warning("The training goes on with other settings than it began with: %s.", "; ".join(changed))
        if lr == made_with["lr"]:
            continue
        for group in groups:
            group |= {"lr": group["lr"] * lr / group["initial_lr"], "initial_lr": lr}
        for scheduler in checkpoint.get("lr_schedulers", []):
            scheduler["base_lrs"] = [lr] * len(scheduler["base_lrs"])


def make_optimizer(
    flow_parameters: Iterable[nn.Parameter],
    prior_parameters: Iterable[nn.Parameter],
    lr: float,
    weight_decay: float,
    fused: bool = True,
) -> Adam:
    """Return Adam with the paper's settings.

    Args:
        flow_parameters: Parameters of the flows; the fixed permutations among them are left out.
        prior_parameters: Centres and logits; they have no weight decay.
        lr: Full learning rate.
        weight_decay: Weight decay of the flows.
        fused: Step over all parameters at once, which is faster. Lightning cannot clip gradients with it under
            ``16-mixed``.

    Returns:
        The optimiser.
    """
    groups = [
        {"params": [parameter for parameter in parameters if parameter.requires_grad], "weight_decay": decay}
        for parameters, decay in ((flow_parameters, weight_decay), (prior_parameters, 0.0))
    ]
    return Adam([group for group in groups if group["params"]], lr=lr, betas=(0.95, 0.99), fused=fused)
