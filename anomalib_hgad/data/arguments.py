# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Creates a MultiClass from the arguments of a command."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature

from anomalib_hgad.data.multi_class import MultiClass


def multi_class(arguments: Mapping[str, object]) -> MultiClass:
    """Create a datamodule from arguments by name; ``num_workers`` is 0 unless given.

    Args:
        arguments: Arguments of :class:`~anomalib_hgad.MultiClass`.

    Returns:
        The datamodule.

    Raises:
        ValueError: If there is no such argument, or as in :class:`~anomalib_hgad.MultiClass`.
        FileNotFoundError: If a folder is missing.
    """
    if unknown := sorted(arguments.keys() - signature(MultiClass).parameters):
        msg = f"MultiClass has no argument {', '.join(unknown)}. It has {', '.join(signature(MultiClass).parameters)}."
        raise ValueError(msg)
    return MultiClass(**{"num_workers": 0} | dict(arguments))  # type: ignore[arg-type]
