# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What to do about a class that anomalib cannot set up."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from importlib import import_module
from pathlib import Path

from anomalib.data import AnomalibDataModule, BTech

from anomalib_hgad.data.class_folder import ClassFolder
from anomalib_hgad.data.folders import (
    category_folder,
    image_files,
    is_hidden,
    listed,
    named_folders,
    pair_masks,
    subfolders,
)
from anomalib_hgad.data.layouts import GOOD, is_good, is_like_good
from anomalib_hgad.data.letters import has_control_characters
from anomalib_hgad.data.reading import IMAGE_SUFFIXES

logger = logging.getLogger(__name__)


def explain_setup_error(class_name: str, datamodule: AnomalibDataModule, error: Exception) -> str:
    """Say what to do about a class whose datamodule cannot be set up.

    anomalib's own words are often those of pandas ("Must have equal len keys and value"). So the class's folder is
    looked at.

    Args:
        class_name: Name of the class.
        datamodule: The datamodule of the class.
        error: What it raised.

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
    if fault := fault or _stray(folder) or _hidden(folder):
        return f"{start}: {fault} ({words})"
    return f"{start} from {folder}: {words}. Correct what is not as anomalib expects it, or leave the class out."


def _fault_of_folder(folder: Path) -> str | None:
    """What is wrong with a folder, whatever its layout."""
    if not folder.is_dir():
        return f"its folder {folder} is missing. Correct root, or leave the class out."
    names = {name for path in (folder, *folder.rglob("*")) if path.is_dir() for name in path.resolve().parts}
    odd = [ascii(name) for name in names if has_control_characters(name)]
    if odd:
        return f"names of folders have control characters or bytes that are no text: {listed(odd)}. Rename them."
    lost = [path for path in folder.rglob("*") if path.is_symlink() and not path.exists()]
    if lost:
        return f"{len(lost)} links lead to no file: {listed(lost)}. Correct or remove them."
    if not image_files(folder):
        return f"its folder {folder} has no images. Add some, or leave the class out."
    return None


def warn_of_unread_images(class_name: str, datamodule: AnomalibDataModule, read: Iterable[str]) -> None:
    """Name images that anomalib's dataset leaves out for the ending of their names, or for their place.

    Args:
        class_name: Name of the class.
        datamodule: Its datamodule.
        read: Images that are in it.
    """
    root = getattr(datamodule, "root", None)
    if root is None or not datamodule.category:
        return
    folder = category_folder(Path(root), datamodule.category)
    for fault in (_unread(folder, datamodule), _stray(folder, {Path(path).resolve() for path in read})):
        if fault:
            logger.warning("Class %r: %s", class_name, fault)


def _stray(folder: Path, read: Collection[Path] = ()) -> str | None:
    """Which images lie beside the folders of their kinds, and are not read."""
    places = (folder / "train", folder / "test")
    images = [file for place in places for file in image_files(place) if file.parent == place]
    if not (stray := [file for file in images if file.resolve() not in read]):
        return None
    return f"{len(stray)} images lie beside the folders of their kinds: {listed(stray)}. Put them into one of these."


def _unread(folder: Path, datamodule: AnomalibDataModule) -> str | None:
    """Which images the dataset of a datamodule does not read for the ending of their names."""
    module = import_module(type(datamodule).__module__.replace(".datamodules.", ".datasets."))
    endings = vars(module).get("IMG_EXTENSIONS", IMAGE_SUFFIXES)
    if endings == IMAGE_SUFFIXES or not (
        unread := [file for file in image_files(folder) if file.suffix not in endings]
    ):
        return None
    return (
        f"{len(unread)} images are left out, for {type(datamodule).__name__} reads {', '.join(endings)} alone: "
        f"{listed(unread)}. Convert them, or give MultiClass the parent folder as root, without dataset."
    )


def _fault_of_class(folder: Path, datamodule: AnomalibDataModule) -> str | None:
    """What a class lacks."""
    normal = named_folders(datamodule, "normal_dir")
    if normal and not any(map(image_files, normal)):
        return f"{listed(normal)} has no normal training image. Add some, or leave the class out."
    pairs = [pair_masks(*folders) for folders in _mask_folders(folder, datamodule)]
    several = [image for masks in pairs for image, of_image in masks.items() if len(of_image) > 1]
    if several and not isinstance(datamodule, ClassFolder):
        return (
            f"{len(several)} anomalous images have several masks, where it takes one for each: {listed(several)}. Make "
            "one of them, or give MultiClass the parent folder as root, without dataset: it takes what any of them "
            "marks."
        )
    alike = [kind for kind in subfolders(folder / "test") if kind.name != _normal_name(datamodule)]
    alike = [kind for kind in alike if is_good(kind) or is_like_good(kind.name)]
    if not normal and alike:
        return (
            f"{listed(alike)} may hold normal images by its name, but all folders in test but "
            f"{_normal_name(datamodule)!r} hold anomalous ones. Rename it, as 'good' or after what is wrong."
        )
    without = [image for masks in pairs for image, of_image in masks.items() if not of_image]
    if without:
        return (
            f"{len(without)} anomalous images have no mask: {listed(without)}. Add their masks, or remove the images. "
            "If no image of the class has one, give MultiClass the parent folder as root, without dataset."
        )
    return None


def _hidden(folder: Path) -> str | None:
    """Which images are hidden; anomalib takes most of them in, and finds no mask of theirs."""
    images = [path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES]
    if not (hidden := [path for path in images if is_hidden(path, [folder])]):
        return None
    return (
        f"{len(hidden)} images are hidden: {listed(hidden)}. Remove them with their folders, or give MultiClass the "
        "parent folder as root, without dataset, which leaves them out."
    )


def _normal_name(datamodule: AnomalibDataModule) -> str:
    """What anomalib's dataset calls the folders of normal images."""
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
