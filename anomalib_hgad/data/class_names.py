# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The product classes of a model, and the mapping of the classes of its data to them.

Classes are matched by name: a model tests and predicts on any subset of its classes in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from lightning.pytorch import LightningDataModule

from anomalib_hgad.data.batch import NO_CLASS, ClassImageBatch, FeatureBatch
from anomalib_hgad.data.letters import composed

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
"""Allowed dtypes of a class index."""

_Batch = TypeVar("_Batch", ClassImageBatch, FeatureBatch)


def datamodule_class_names(datamodule: LightningDataModule) -> list[str]:
    """Names of the classes of a datamodule.

    Args:
        datamodule: :class:`~anomalib_hgad.MultiClass`, or any other anomalib datamodule, which counts as one class.

    Returns:
        The names, in the order of ``class_index``.
    """
    if (names := getattr(datamodule, "class_names", None)) is not None:
        return list(names)
    # A checkpoint identifies its classes by name, and Unicode has two forms of some names.
    return [composed(str(getattr(datamodule, "category", None) or getattr(datamodule, "name", "0")))]


def claimed_class_names(datamodule: LightningDataModule | None) -> list[str]:
    """Class names declared by a datamodule; none if it has no category."""
    claims = hasattr(datamodule, "class_names") or getattr(datamodule, "category", None)
    return datamodule_class_names(datamodule) if datamodule is not None and claims else []


def check_known(names: Iterable[str], known_names: Sequence[str]) -> None:
    """Check that a model knows the classes of its data.

    Args:
        names: Names of the data's classes.
        known_names: Names of the model's classes.

    Raises:
        ValueError: If it does not know a class.
    """
    unknown = [name for name in dict.fromkeys(names) if name not in known_names]
    if unknown:
        msg = f"The model was not trained on these classes of the data: {', '.join(map(str, unknown))}. It "
        msg += f"knows {', '.join(known_names) or 'none'}. Choose the data's classes from these, or train a "
        msg += "model with the new ones."
        raise ValueError(msg)


def label_batch(batch: _Batch, known_names: Sequence[str], only_name: str | None) -> _Batch:
    """Set the class indices of a batch to those of the model, by class name.

    Args:
        batch: Batch in main memory. Class indices without names are taken as the model's. An image with a name and the
            index :data:`~anomalib_hgad.data.batch.NO_CLASS` keeps both.
        known_names: Names of the model's classes.
        only_name: Class of all images of a batch without classes; ``None`` leaves such a batch without a class.

    Returns:
        The same batch.

    Raises:
        ValueError: If the model does not know a class, or if the indices are not integers.
    """
    names = batch.class_name
    if batch.class_index is not None and batch.class_index.dtype not in INTEGERS:
        msg = f"Expected class_index of integers, got {batch.class_index.dtype}. Make it an int64 tensor of shape "
        msg += "(number of images,)."
        raise ValueError(msg)
    of_no_class = [False] * batch.batch_size
    if names is not None and batch.class_index is not None:
        of_no_class = (batch.class_index == NO_CLASS).tolist()
    if names is None and batch.class_index is not None:
        outside = (batch.class_index < 0) | (batch.class_index >= len(known_names))
        if outside.any():
            msg = f"Expected class_index from 0 to {len(known_names) - 1} ({', '.join(known_names)}), got "
            msg += f"{batch.class_index[outside].tolist()}."
            raise ValueError(msg)
        names = [known_names[index] for index in batch.class_index.tolist()]
    elif names is None and only_name is not None:
        names = [only_name] * batch.batch_size
    if names is None:
        return batch
    check_known((name for name, none in zip(names, of_no_class, strict=True) if not none), known_names)
    batch.class_index = torch.tensor(
        [NO_CLASS if none else known_names.index(name) for name, none in zip(names, of_no_class, strict=True)]
    )
    batch.class_name = names
    return batch
