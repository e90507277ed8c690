# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Explains why anomalib cannot set up a class, and what to do."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from importlib import import_module
from pathlib import Path

import pandas as pd
from anomalib.data import AnomalibDataModule, BTech, Tabular
from anomalib.data.utils import Split

from anomalib_hgad.data.class_folder import ClassFolder
from anomalib_hgad.data.folders import (
    category_folder,
    image_files,
    is_hidden,
    linked_folders,
    listed,
    named_folders,
    pair_masks,
    subfolders,
)
from anomalib_hgad.data.layouts import GOOD, is_good, is_like_good, warn_of_linked_folders
from anomalib_hgad.data.letters import has_control_characters
from anomalib_hgad.data.reading import IMAGE_SUFFIXES

logger = logging.getLogger(__name__)


def explain_setup_error(class_name: str, datamodule: AnomalibDataModule, error: Exception) -> str:
    """Explain why the datamodule of a class cannot be set up, and say what to do.

    anomalib's own message is often that of pandas ("Must have equal len keys and value"). Therefore the folder of the
    class is inspected.

    Args:
        class_name: Name of the class.
        datamodule: The datamodule of the class.
        error: The exception that it raised.

    Returns:
        The message.
    """
    start = f"Class {class_name!r} cannot be set up by {type(datamodule).__name__}"
    words = str(error).rstrip(".")
    root = getattr(datamodule, "root", None)
    if root is None:
        return f"{start}: {words}. Correct its folders, or leave the class out."
    folder = category_folder(Path(root), datamodule.category)
    fault = _fault_of_folder(folder) or _unread(folder, datamodule) or _fault_of_class(folder, datamodule)
    if fault := fault or _stray(folder) or _hidden(folder) or _too_deep(folder) or _linked(folder):
        return f"{start}: {fault} ({words})"
    return f"{start} from {folder}: {words}. Correct what anomalib does not expect, or leave the class out."


def _fault_of_folder(folder: Path) -> str | None:
    """Explain what is wrong with a folder, regardless of its layout."""
    if not folder.is_dir():
        return f"its folder {folder} is missing. Correct root, or leave the class out."
    names = {name for path in (folder, *folder.rglob("*")) if path.is_dir() for name in path.resolve().parts}
    odd = [ascii(name) for name in names if has_control_characters(name)]
    if odd:
        return f"folder names have control characters or bytes that are not text: {listed(odd)}. Rename them."
    lost = [path for path in folder.rglob("*") if path.is_symlink() and not path.exists()]
    if lost:
        return f"{len(lost)} links are broken: {listed(lost)}. Correct or remove them."
    if not image_files(folder):
        return f"its folder {folder} has no images. Add some, or leave the class out."
    return None


def warn_of_unread_images(class_name: str, datamodule: AnomalibDataModule, read: Iterable[str]) -> None:
    """Warn of images that anomalib's dataset ignores: because of a file extension, a folder, a link or a split.

    Args:
        class_name: Name of the class.
        datamodule: Its datamodule.
        read: Images and masks that are in it.
    """
    if fault := _unused_rows(datamodule):
        logger.warning("Class %r: %s", class_name, fault)
    root = getattr(datamodule, "root", None)
    if root is None or not datamodule.category:
        if not isinstance(datamodule, ClassFolder):
            places = named_folders(datamodule, "normal_dir", "normal_test_dir", "abnormal_dir", "mask_dir")
            warn_of_linked_folders(class_name, places)
        return
    folder = category_folder(Path(root), datamodule.category)
    files = {Path(path).resolve() for path in read}
    faults = [_unread(folder, datamodule), _stray(folder, files), _too_deep(folder, files)]
    if any(file.is_relative_to(folder.resolve()) for file in files):  # else they were converted into another folder
        faults.append(_linked(folder, files))
    for fault in faults:
        if fault:
            logger.warning("Class %r: %s", class_name, fault)


def _stray(folder: Path, read: Collection[Path] = ()) -> str | None:
    """Explain which images are directly in train or test, outside the folders of their kinds, and are not read."""
    places = (folder / "train", folder / "test")
    images = [file for place in places for file in image_files(place) if file.parent == place]
    if not (stray := [file for file in images if file.resolve() not in read]):
        return None
    return f"{len(stray)} images are outside the folders of their kinds: {listed(stray)}. Move them into one of these."


def _unused_rows(datamodule: AnomalibDataModule) -> str | None:
    """Explain which rows of a table of images are in none of the splits that anomalib knows."""
    table = pd.DataFrame(datamodule._unprocessed_samples) if isinstance(datamodule, Tabular) else pd.DataFrame()
    if "split" not in table:
        return None
    splits = table["split"].map(lambda split: split.value if isinstance(split, Split) else split)
    counts = splits[~splits.isin([Split.TRAIN.value, Split.TEST.value])].value_counts(dropna=False)
    if not len(counts):
        return None
    others = [f"{split!r} ({count})" for split, count in counts.items()]
    return (
        f"{counts.sum()} rows of the table are ignored, because split is neither 'train' nor 'test' in them: "
        f"{listed(others)}. Correct it, or remove the rows."
    )


def _too_deep(folder: Path, read: Collection[Path] = ()) -> str | None:
    """Explain which images are in folders within those of the kinds and not read; in some datasets all images are."""
    images = [file for place in ("train", "test") for file in image_files(folder / place)]
    depths = [len(file.relative_to(folder).parts) for file in images]
    deep = [file for file, depth in zip(images, depths, strict=True) if depth > 3 and file.resolve() not in read]
    if not deep or 3 not in depths:
        return None
    return f"{len(deep)} images are in folders within those of the kinds: {listed(deep)}. Move them into the latter."


def _linked(folder: Path, read: Collection[Path] = ()) -> str | None:
    """Explain which linked images and folders are not read: anomalib leaves out what is outside of the class."""
    files = [file for file in image_files(folder) if file.is_symlink() and file.resolve() not in read]
    folders = [link for link in linked_folders(folder) if not all(file.resolve() in read for file in image_files(link))]
    if not (linked := [*files, *folders]):
        return None
    return (
        f"links that lead out of the folder of the class are ignored: {listed(linked)}. Replace them by what they link "
        "to, or give MultiClass the parent folder as root, without dataset."
    )


def _unread(folder: Path, datamodule: AnomalibDataModule) -> str | None:
    """Explain which images the dataset of a datamodule does not read because of their file extension."""
    module = import_module(type(datamodule).__module__.replace(".datamodules.", ".datasets."))
    endings = vars(module).get("IMG_EXTENSIONS", IMAGE_SUFFIXES)
    if endings == IMAGE_SUFFIXES or not (
        unread := [file for file in image_files(folder) if file.suffix not in endings]
    ):
        return None
    return (
        f"{len(unread)} images are ignored, because {type(datamodule).__name__} reads only {', '.join(endings)}: "
        f"{listed(unread)}. Convert them, or give MultiClass the parent folder as root, without dataset."
    )


def _fault_of_class(folder: Path, datamodule: AnomalibDataModule) -> str | None:
    """Explain what a class lacks, or which of its images or masks are wrong."""
    normal = named_folders(datamodule, "normal_dir")
    if normal and not any(map(image_files, normal)):
        return f"{listed(normal)} has no normal training image. Add some, or leave the class out."
    pairs = [pair_masks(*folders) for folders in _mask_folders(folder, datamodule)]
    several = [image for masks in pairs for image, of_image in masks.items() if len(of_image) > 1]
    if several and not isinstance(datamodule, ClassFolder):
        return (
            f"{len(several)} anomalous images have several masks, but it accepts one for each: {listed(several)}. "
            "Merge them, or give MultiClass the parent folder as root, without dataset: it uses the union of the masks."
        )
    alike = [kind for kind in subfolders(folder / "test") if kind.name != _normal_name(datamodule)]
    alike = [kind for kind in alike if is_good(kind) or is_like_good(kind.name)]
    if not normal and alike:
        return (
            f"{listed(alike)} seems to hold normal images by its name, but all folders in test except "
            f"{_normal_name(datamodule)!r} hold anomalous images. Rename it to 'good', or after the kind of defect."
        )
    without = [image for masks in pairs for image, of_image in masks.items() if not of_image]
    if without:
        return (
            f"{len(without)} anomalous images have no mask: {listed(without)}. Add their masks, or remove the images. "
            "If no image of the class has one, give MultiClass the parent folder as root, without dataset."
        )
    return None


def _hidden(folder: Path) -> str | None:
    """Explain which images are hidden; anomalib includes most of them, and finds no masks for them."""
    images = [path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES]
    if not (hidden := [path for path in images if is_hidden(path, [folder])]):
        return None
    return (
        f"{len(hidden)} images are hidden: {listed(hidden)}. Remove them with their folders, or give MultiClass the "
        "parent folder as root, without dataset, which leaves them out."
    )


def _normal_name(datamodule: AnomalibDataModule) -> str:
    """Name of the folders of normal images in anomalib's dataset."""
    return "ok" if isinstance(datamodule, BTech) else GOOD


def _mask_folders(folder: Path, datamodule: AnomalibDataModule) -> list[tuple[Path, Path]]:
    """Get the folders of anomalous images of a class, each with the folder of its masks."""
    if hasattr(datamodule, "mask_dir"):
        images, masks = datamodule.abnormal_dir, datamodule.mask_dir
        both = isinstance(images, str | Path) and isinstance(masks, str | Path)
        return [(folder / images, folder / masks)] if both else []
    kinds = [kind for kind in subfolders(folder / "test") if kind.name != _normal_name(datamodule)]
    pairs = [(kind, folder / "ground_truth" / kind.name) for kind in kinds]
    # Images or masks in deeper folders are paired in another way.
    return [pair for pair in pairs if not any(map(subfolders, pair))]
