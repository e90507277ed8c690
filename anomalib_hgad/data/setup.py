# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Sets up the datamodule of one class, and checks its images."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from anomalib import TaskType
from anomalib.data import AnomalibDataset
from anomalib.data.utils import LabelName
from anomalib.data.utils.synthetic import SyntheticAnomalyDataset

from anomalib_hgad.data.checks import check_class, check_permissions
from anomalib_hgad.data.dataset import name_synthetic_images
from anomalib_hgad.data.folders import leave_out_hidden, mask_files, mask_names, named_folders
from anomalib_hgad.data.random_numbers import own_random_numbers
from anomalib_hgad.data.setup_errors import explain_setup_error, warn_of_unread_images
from anomalib_hgad.data.sources import ClassSource
from anomalib_hgad.data.splits import check_validation

SUBSETS = ("train_data", "val_data", "test_data")
"""Names of a datamodule's datasets."""


def set_up_class(source: ClassSource, stage: str | None, picture_folder: str) -> dict[str, AnomalibDataset]:
    """Set up the datamodule of a class.

    Args:
        source: The class.
        stage: Stage passed to its datamodule.
        picture_folder: Name of the folder whose subfolders separate the pictures of the classes.

    Returns:
        Its datasets that have images, by name.

    Raises:
        ValueError: If the datamodule fails, or does not find expected validation images. The message says what to do.
        PermissionError: If a folder of the class cannot be read.
    """
    datamodule = source.datamodule
    check_permissions(datamodule)
    try:
        # Without a seed anomalib would draw other splits in every process: a test would have training images.
        with _strings_as_objects(), own_random_numbers(datamodule.seed):
            datamodule.setup(stage)
    except Exception as error:
        raise ValueError(explain_setup_error(source.name, datamodule, error)) from error
    subsets = {subset: getattr(datamodule, subset, None) for subset in SUBSETS}
    check_validation(source.name, datamodule, subsets["val_data"])
    warn_of_unread_images(source.name, datamodule, _files(subsets.values()))
    named = named_folders(datamodule, "normal_dir", "normal_test_dir", "abnormal_dir")
    for data in subsets.values():
        if isinstance(data, SyntheticAnomalyDataset):
            name_synthetic_images(data, Path(picture_folder, source.name))
        if data is not None:
            leave_out_hidden(data, [*named, Path(getattr(datamodule, "root", None) or ".")])
    return {subset: data for subset, data in subsets.items() if data is not None and len(data)}


def _files(subsets: Iterable[AnomalibDataset | None]) -> list[str]:
    """Images, masks and depth maps of datasets."""
    tables = [data.samples.filter(like="_path") for data in subsets if data is not None]
    values = [value for table in tables for value in table.to_numpy().ravel()]
    return [name for value in values for name in mask_names(value)]


@contextmanager
def _strings_as_objects() -> Iterator[None]:
    """Make pandas 3 store strings like pandas 2; otherwise anomalib 2.7 fails on MVTecLOCO and AutoVI."""
    if not pd.__version__.startswith("3."):
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The 'future.infer_string' option is deprecated")
        with pd.option_context("future.infer_string", False):  # noqa: FBT003
            yield


def check_and_mark_masks(class_name: str, subsets: dict[str, AnomalibDataset]) -> dict[str, bool]:
    """Check the images of a class, and make its datasets read masks only where masks exist.

    Args:
        class_name: Name of the class.
        subsets: Its datasets, by name.

    Returns:
        Whether each has masks.

    Raises:
        ValueError: If images or masks are invalid.
    """
    real = {subset: data.samples for subset, data in subsets.items() if not isinstance(data, SyntheticAnomalyDataset)}
    evaluation = [samples for subset, samples in real.items() if subset != "train_data"]
    class_has_masks = check_class(class_name, real.get("train_data"), evaluation)
    # Synthetic anomalies have masks even where the class has none.
    has_masks = {subset: class_has_masks or subset not in real for subset in subsets}
    for subset, data in subsets.items():
        samples = data.samples
        samples["mask_path"] = [
            mask if label == LabelName.ABNORMAL and mask_files(mask) else ""
            for label, mask in zip(samples["label_index"], samples["mask_path"], strict=True)
        ]
        samples.attrs["task"] = (TaskType.SEGMENTATION if has_masks[subset] else TaskType.CLASSIFICATION).value
    return has_masks
