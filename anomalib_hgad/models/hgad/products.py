# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Adds products to a trained model, and removes products from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from anomalib.data import AnomalibDataModule
from lightning.pytorch import Trainer

from anomalib_hgad.common.files import atomic_write
from anomalib_hgad.data.class_names import datamodule_class_names
from anomalib_hgad.models.checkpoint import with_metrics_of
from anomalib_hgad.models.checkpoint_io import explain_checkpoint_errors
from anomalib_hgad.models.hgad import added_classes
from anomalib_hgad.models.hgad.best_state import TRAINING_KEY
from anomalib_hgad.models.hgad.class_labels import ClassRecord
from anomalib_hgad.models.hgad.fit_added import AddedClass, FitAdded

if TYPE_CHECKING:
    from anomalib_hgad.models.hgad.lightning_model import Hgad


def add_classes(model: Hgad, datamodule: AnomalibDataModule, accelerator: str) -> list[AddedClass]:
    """Add classes to a model; see :meth:`anomalib_hgad.Hgad.add_classes`."""
    if not model.class_names:
        msg = "The model knows no products: expected a trained model. Train it on the products you have."
        raise ValueError(msg)
    added_classes.check_can_change(model.model)
    datamodule.prepare_data()
    datamodule.setup("fit")
    names = datamodule_class_names(datamodule)
    if known := [name for name in names if name in model.class_names]:
        msg = f"The model already knows {', '.join(known)}: expected products with new names. Remove the old "
        msg += "ones first, or rename the folders."
        raise ValueError(msg)
    before = model.class_names
    model.fit_added = FitAdded([*before, *names], len(names))
    model.labels.names = [*before, *names]
    trainer = Trainer(
        accelerator=accelerator,
        devices=1,
        max_epochs=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    was_training = model.training
    try:
        trainer.fit(model.train(), datamodule=datamodule)
        added = model.fit_added.added
    except BaseException:
        model.labels.names = before
        raise
    finally:
        model.fit_added = None
        model.train(was_training)
    model.labels.records |= {of_class.name: ClassRecord.of_today(of_class.images) for of_class in added}
    return added


def remove_class(model: Hgad, name: str) -> None:
    """Remove a class from a model; see :meth:`anomalib_hgad.Hgad.remove_class`."""
    added_classes.check_can_change(model.model)
    names = model.class_names
    if name not in names:
        msg = f"The model does not know {name!r}. It knows {', '.join(names) or 'nothing'}."
        raise ValueError(msg)
    if len(names) == 1:
        msg = f"{name!r} is the only product of the model: expected at least one other. Delete the model instead."
        raise ValueError(msg)
    added_classes.remove_class(model.model, names.index(name))
    model.labels.names = [other for other in names if other != name]
    model.labels.records.pop(name, None)
    model.known_defects.pop(name, None)


def write_checkpoint(model: Hgad, original: Path, output: Path) -> None:
    """Write a model whose products differ from those of the checkpoint that it was loaded from.

    Everything else is copied from that checkpoint, except the state for resuming its training, which belongs to the old
    products.

    Args:
        model: The model.
        original: The checkpoint.
        output: The new checkpoint, written atomically.
    """
    with explain_checkpoint_errors(original):
        checkpoint: dict[str, Any] = torch.load(original, map_location="cpu", weights_only=True)
    checkpoint["state_dict"] = with_metrics_of(model.state_dict(), checkpoint["state_dict"])
    checkpoint |= {"optimizer_states": [], "lr_schedulers": []}
    checkpoint.pop(TRAINING_KEY, None)
    model.on_save_checkpoint(checkpoint)
    with atomic_write(output) as unfinished:
        torch.save(checkpoint, unfinished)
