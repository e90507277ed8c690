# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Creates a MultiClass from the arguments of a command."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature

from anomalib_hgad.common.checks import check_types
from anomalib_hgad.data.multi_class import MultiClass

OBJECTS = ("datamodules", "train_augmentations", "val_augmentations", "test_augmentations", "augmentations")
"""Arguments that are objects, which the datamodule itself checks."""


def check_arguments(arguments: Mapping[str, object]) -> None:
    """Check names and types of arguments, as ``anomalib`` checks its own.

    Args:
        arguments: Arguments of :class:`~anomalib_hgad.MultiClass`.

    Raises:
        ValueError: If there is no such argument, or if one has the wrong type.
    """
    if unknown := sorted(arguments.keys() - signature(MultiClass).parameters):
        msg = f"MultiClass has no argument {', '.join(unknown)}. It has {', '.join(signature(MultiClass).parameters)}."
        raise ValueError(msg)
    try:
        check_types(MultiClass.__init__, arguments, left_out=OBJECTS)
    except TypeError as error:
        msg = f"MultiClass: {error}"
        raise ValueError(msg) from error


def multi_class(arguments: Mapping[str, object]) -> MultiClass:
    """Create a datamodule from arguments by name; ``num_workers`` is 0 unless given.

    Args:
        arguments: Arguments of :class:`~anomalib_hgad.MultiClass`.

    Returns:
        The datamodule.

    Raises:
        ValueError: As in :func:`check_arguments` and :class:`~anomalib_hgad.MultiClass`.
        FileNotFoundError: If a folder is missing.
    """
    check_arguments(arguments)
    return MultiClass(**{"num_workers": 0} | dict(arguments))  # type: ignore[arg-type]
