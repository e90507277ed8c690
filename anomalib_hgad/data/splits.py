# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Checks the split settings of a class, which anomalib misreads or rejects without naming them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.utils import TestSplitMode, ValSplitMode

MODES = {"test_split_mode": TestSplitMode, "val_split_mode": ValSplitMode}
"""Settings with a fixed set of values, and their types."""


def check_splits(settings: Mapping[str, Any]) -> None:
    """Check modes and ratios.

    Args:
        settings: The given settings by name.

    Raises:
        ValueError: If anomalib has no such mode, or if a ratio is not between 0 and 1.
    """
    for name, modes in MODES.items():
        values = [mode.value for mode in modes]
        if settings.get(name, modes.NONE) not in values:
            msg = f"Expected {name} to be one of {', '.join(map(repr, values))}; got {settings[name]!r}."
            raise ValueError(msg)
        ratio = name.replace("mode", "ratio")
        value = settings.get(ratio, 0.5)
        if not isinstance(value, float) or not 0 < value < 1:
            msg = f"Expected {ratio} to be a number greater than 0 and less than 1; got {value!r}. For no such images, "
            msg += f"give {name}='none'."
            raise ValueError(msg)


def check_validation(class_name: str, datamodule: AnomalibDataModule, data: AnomalibDataset | None) -> None:
    """Check that a class has its own validation images if ``val_split_mode`` requires them.

    Args:
        class_name: Name of the class.
        datamodule: Its datamodule, already set up.
        data: Its validation images.

    Raises:
        ValueError: If it has none.
    """
    if datamodule.val_split_mode == ValSplitMode.FROM_DIR and not data:
        msg = f"Class {class_name!r}: val_split_mode='from_dir' needs a dataset with validation images, but "
        msg += f"{type(datamodule).__name__} found none. Give another val_split_mode, such as 'same_as_test'."
        raise ValueError(msg)
