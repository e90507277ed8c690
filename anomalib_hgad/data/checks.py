# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Checks of the images of a class, with messages that say what to do.

All files are opened, but only the pixels of masks are read: 10 000 images take seconds.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from anomalib.data import AnomalibDataModule
from anomalib.data.utils import LabelName
from anomalib.utils.path import generate_output_filename
from PIL import Image

from anomalib_hgad.data.folders import category_folder, check_permission, listed, mask_files, mask_names, named_folders
from anomalib_hgad.data.masks import read_masks
from anomalib_hgad.data.reading import UNREADABLE, check_depth, decoding, has_pages

logger = logging.getLogger(__name__)


def check_class(class_name: str, train: pd.DataFrame | None, evaluation: Sequence[pd.DataFrame]) -> bool:
    """Check the images and masks of one class.

    Args:
        class_name: Name of the class, for the messages.
        train: Training samples with columns ``image_path``, ``label_index`` and ``mask_path``, if there are any.
        evaluation: Tables of validation and test samples, with the same columns.

    Returns:
        Whether the class has masks.

    Raises:
        ValueError: If there is no normal training image, if a file cannot be read, if some anomalous images have a mask
            and others none, or if a mask and its image differ in size.
        OSError: If a mask is broken.
    """
    if train is None or not (train["label_index"] == LabelName.NORMAL).any():
        msg = f"Class {class_name!r}: expected a normal training image, found none. Add some, or leave the class out."
        raise ValueError(msg)
    samples = pd.concat([train, *evaluation], ignore_index=True)
    sizes = image_sizes(class_name, samples["image_path"])
    anomalous = pd.concat([train.iloc[:0], *evaluation]).loc[lambda rows: rows["label_index"] == LabelName.ABNORMAL]
    named = dict(zip(anomalous["image_path"], anomalous["mask_path"], strict=True))
    masks = {path: mask_files(mask) for path, mask in named.items()}
    check_all_or_none(class_name, masks, masks_named=any(mask_names(mask) for mask in named.values()))
    mask_sizes = image_sizes(class_name, (str(file) for files in masks.values() for file in files), shown=False)
    wrong = [
        f"{file} is {mask_sizes[str(file)]}, {path} is {sizes[path]}"
        for path, files in masks.items()
        for file in files
        if mask_sizes[str(file)] != sizes[path]
    ]
    if wrong:
        msg = (
            f"Class {class_name!r}: {len(wrong)} masks do not have the size (width, height) of their image: "
            f"{listed(wrong)}. Save each mask in the size of its image."
        )
        raise ValueError(msg)
    _warn_of_odd_masks(class_name, {path: read_masks(files).mean() for path, files in masks.items() if files})
    return any(masks.values())


def _warn_of_odd_masks(class_name: str, marked_shares: Mapping[str, float]) -> None:
    """Warn of anomalous images whose masks mark no pixel, or so many that the masks may be inverted."""
    unmarked = [path for path, share in marked_shares.items() if not share]
    if unmarked:
        logger.warning(
            "Class %r: the masks of %d anomalous images mark no pixel: %s. The pixel-level metrics treat these images "
            "as normal. Mark their defects, or remove them.",
            class_name,
            len(unmarked),
            listed(unmarked),
        )
    mostly_marked = [path for path, share in marked_shares.items() if share > 0.5]
    if mostly_marked:
        logger.warning(
            "Class %r: the masks of %d anomalous images mark more than half of the image: %s. All pixels that are not "
            "black count as marked: invert the masks if black marks the defects.",
            class_name,
            len(mostly_marked),
            listed(mostly_marked),
        )


def check_all_or_none(class_name: str, masks: Mapping[str, Sequence[Path]], *, masks_named: bool) -> None:
    """Check that all anomalous images of a class have a mask, or that none has.

    Args:
        class_name: Name of the class, for the message.
        masks: The mask files of each anomalous image.
        masks_named: Whether the dataset names mask files, which then have to exist.

    Raises:
        ValueError: If some have a mask and others none, or if none of the named files exists.
    """
    without = [path for path, files in masks.items() if not files]
    if without and (masks_named or len(without) < len(masks)):
        msg = (
            f"Class {class_name!r}: {len(without)} of {len(masks)} anomalous images have no mask: {listed(without)}. "
            "Add their masks, remove these images, or remove all masks of the class to use it at image level only."
        )
        raise ValueError(msg)


def image_sizes(class_name: str, paths: Iterable[str], shown: bool = True) -> dict[str, tuple[int, int]]:
    """Open image files and get their sizes, with a warning of files with several pages.

    Args:
        class_name: Name of the class, for the message.
        paths: The files.
        shown: Whether their grey values are input of a model; those of a mask are not.

    Returns:
        Width and height of each file in pixels.

    Raises:
        ValueError: If files are missing, empty, not images, or have grey values that would be clipped.
    """
    sizes: dict[str, tuple[int, int]] = {}
    broken: list[str] = []
    of_pages: list[str] = []
    for path in dict.fromkeys(paths):
        try:
            with decoding(), Image.open(path) as image:
                if shown:
                    check_depth(image)
                sizes[path] = image.size
                if has_pages(image):
                    of_pages.append(path)
        except UNREADABLE as error:
            empty = Path(path).is_file() and not Path(path).stat().st_size
            broken.append(f"{path} (zero bytes)" if empty else f"{path} ({error})")
    if broken:
        msg = (
            f"Class {class_name!r}: {len(broken)} image files cannot be read: {listed(broken)}. "
            "Replace them or remove them."
        )
        raise ValueError(msg)
    if of_pages:
        logger.warning(
            "Class %r: %d image files have several pages, and only the first is read: %s. Save each page as a file.",
            class_name,
            len(of_pages),
            listed(of_pages),
        )
    return sizes


def picture_folder_name(datamodules: Sequence[AnomalibDataModule]) -> str | None:
    """Name of the folder that contains the images of all classes.

    anomalib saves the picture of an image under the part of its path that comes after the datamodule's name. After
    this name, all image paths are different.

    Args:
        datamodules: The datamodules of all classes.

    Returns:
        The name, or ``None`` if the images have no folder in common.
    """
    folders: list[Path] = []
    for datamodule in datamodules:
        root = Path(getattr(datamodule, "root", None) or ".")
        its_folders = named_folders(datamodule, "normal_dir", "normal_test_dir", "abnormal_dir") or [root]
        folders += [folder.resolve() for folder in its_folders]
    try:
        return Path(os.path.commonpath(folders)).name or None
    except ValueError:  # on different drives
        return None


def check_permissions(datamodule: AnomalibDataModule) -> None:
    """Check that all folders of a class can be read. anomalib treats an unreadable folder as empty.

    Args:
        datamodule: The datamodule of the class.

    Raises:
        PermissionError: If a folder cannot be read.
    """
    root = getattr(datamodule, "root", None)
    folders = named_folders(datamodule, "normal_dir", "normal_test_dir", "abnormal_dir", "mask_dir")
    if root is not None and datamodule.category:
        folders = [category_folder(Path(root), datamodule.category)]
    for folder in folders:
        check_permission(folder)


def clashing_pictures(paths: Iterable[str], folder_name: str) -> list[str]:
    """Find images whose pictures anomalib would save to the same file as those of other images.

    Args:
        paths: The images, as anomalib's items name them.
        folder_name: Name that anomalib uses for the datamodule.

    Returns:
        These images.
    """
    # Links count by their own paths, which anomalib's items have.
    pictures = {path: generate_output_filename(path, "", folder_name, mkdir=False) for path in set(paths)}
    counts = Counter(pictures.values())
    return sorted(path for path, picture in pictures.items() if counts[picture] > 1)


def check_pictures(paths: Iterable[str], folder_name: str) -> None:
    """Check that anomalib saves the pictures of all images to different files.

    Args:
        paths: The images, as anomalib's items name them.
        folder_name: Name of the datamodule.

    Raises:
        ValueError: If some would be saved to the same file.
    """
    if clashing := clashing_pictures(paths, folder_name):
        msg = (
            f"The saved pictures of {len(clashing)} images would overwrite each other: {listed(clashing)}. They keep "
            f"the part of the path below the folder {folder_name!r}: put the images of all classes below one folder, "
            "and give its name to MultiClass as name."
        )
        raise ValueError(msg)


def check_one_class(samples: pd.DataFrame) -> None:
    """Check that no training image is in two classes, for example because one class is a link to another.

    Args:
        samples: Training images of all classes, with columns ``image_path`` and ``class_name``.

    Raises:
        ValueError: If an image is in two classes.
    """
    files = samples["image_path"].map(lambda path: str(Path(path).resolve()))
    classes = samples["class_name"].groupby(files).unique()
    shared = classes[classes.map(len) > 1]
    if len(shared):
        names = sorted(set().union(*shared))
        msg = (
            f"{len(shared)} training images are in several classes ({', '.join(names)}): {listed(shared.index)}. "
            "These classes cannot be distinguished: keep only one of them."
        )
        raise ValueError(msg)
