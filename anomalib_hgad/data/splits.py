# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Settings of the splits of a class, which anomalib takes for others or refuses without their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.utils import TestSplitMode, ValSplitMode

MODES = {"test_split_mode": TestSplitMode, "val_split_mode": ValSplitMode}
"""Settings that are one of several, and their types."""


def check_splits(settings: Mapping[str, Any]) -> None:
    """Check modes and ratios.

    Args:
        settings: Those that are given, by name.

    Raises:
        ValueError: If a mode is none of anomalib's, or a ratio not between 0 and 1.
    """
    for name, modes in MODES.items():
        values = [mode.value for mode in modes]
        if settings.get(name, modes.NONE) not in values:
            msg = f"Expected {name} to be one of {', '.join(map(repr, values))}; got {settings[name]!r}."
            raise ValueError(msg)
        ratio = name.replace("mode", "ratio")
        value = settings.get(ratio, 0.5)
        if not isinstance(value, float) or not 0 < value < 1:
            msg = f"Expected {ratio} to be a number between 0 and 1, and neither of them; got {value!r}. For none of "
            msg += f"these images, give {name}='none'."
            raise ValueError(msg)


def check_validation(class_name: str, datamodule: AnomalibDataModule, data: AnomalibDataset | None) -> None:
    """Check that a class has validation images of its own where its datamodule is to take such.

    Args:
        class_name: Name of the class.
        datamodule: Its datamodule, set up.
        data: Its validation images.

    Raises:
        ValueError: If it has none.
    """
    if datamodule.val_split_mode == ValSplitMode.FROM_DIR and not data:
        msg = (
            f"Class {class_name!r}: val_split_mode='from_dir' takes the validation images of a dataset that has such, "
        )
        msg += f"but {type(datamodule).__name__} found none. Give another val_split_mode, as 'same_as_test'."
        raise ValueError(msg)
